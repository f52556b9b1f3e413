// SPDX-License-Identifier: GPL-2.0-only
#include "rewrite.h"

#include <time.h>

#include "content.h"

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000ll + now.tv_nsec / 1000;
}

void start_rewriting(struct rewriting *rewriting, const struct rewrite *plan)
{
	*rewriting = (struct rewriting){ .plan = *plan, .next_us = now_us() };
}

/* Rounded up: waking early would only mean to wait again. */
int milliseconds_to_burst(const struct rewriting *rewriting)
{
	int64_t left = rewriting->next_us - now_us();

	return left <= 0 ? 0 : (int)((left + 999) / 1000);
}

void rewrite_when_due(struct rewriting *rewriting)
{
	const struct rewrite *plan = &rewriting->plan;
	int64_t now = now_us();

	if (now < rewriting->next_us)
		return;
	for (uint32_t i = 0; i < plan->burst; i++) {
		uint64_t n = rewriting->written;

		fill_page((uint64_t *)(plan->address + n % plan->pages * PAGE_BYTES), plan->kind, plan->key + n);
		rewriting->written++;
	}
	/* What a busy machine left undone is not made up for: the rate is an upper bound. */
	rewriting->next_us += (int64_t)plan->interval_us;
	if (rewriting->next_us < now)
		rewriting->next_us = now;
}
