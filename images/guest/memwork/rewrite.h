/* SPDX-License-Identifier: GPL-2.0-only */
/* Pages that are written again and again, at a given rate. */
#ifndef MEMWORK_REWRITE_H
#define MEMWORK_REWRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol.h"

struct rewriting {
	struct rewrite plan;	/* no pages: nothing is under way */
	uint64_t written;
	int64_t next_us;
	bool failed;
};

void start_rewriting(struct rewriting *rewriting, const struct rewrite *plan);
int milliseconds_to_burst(const struct rewriting *rewriting);
void rewrite_when_due(struct rewriting *rewriting);

#endif
