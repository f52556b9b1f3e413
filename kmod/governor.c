// SPDX-License-Identifier: GPL-2.0-only
/*
 * The convergence governor: nearly all duplicates are to be merged within
 * convergence_seconds of their last write, and scanning is to take no more than
 * convergence_max_cpu percent of a CPU. Where both cannot be had the ceiling
 * wins, and convergence_state says so.
 *
 * A page is merged in the third pass after it was written, at the latest: found
 * changed; found unchanged, and filed; found by its twin. So a pass is to take a
 * third of the time. Each round is as long as what is left of the pass and of its
 * time say, by the last pass's size; no longer than the ceiling allows, by what a
 * page cost lately; and is followed by a nap that pays for what it cost.
 *
 * State belongs to the scanner, of which there is one as long as the governor is on,
 * or to who has sp_scan_lock for writing; tunables change at any time.
 */
#include <linux/jiffies.h>
#include <linux/kstrtox.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/sched.h>

#include "samepage.h"
#include "attrs.h"
#include "control.h"

#define SP_PASSES_TO_MERGE	3
#define SP_ROUND_FIRST_PAGES	100UL
#define SP_ROUND_MAX_PAGES	1000000UL

static unsigned long sp_converge_seconds;	/* 0: off */
static unsigned int sp_converge_max_cpu = 20;	/* percent */

/* What the thread had done at some time. */
struct sp_mark {
	u64 time_ns;
	u64 cpu_ns;
};

static struct {
	struct sp_mark pass, round;	/* when they began */
	u64 paid_cpu_ns;		/* of the thread, up to the end of the last round */
	unsigned long done;		/* pages looked at in this pass */
	unsigned long pass_pages;	/* that the last whole pass looked at, 0: none yet */
	u64 page_ns;			/* CPU time of one, lately; 0: not known */
	u64 nap_ns;			/* that the ceiling asks for */
} sp_governor;

/* Of the last pass. */
static unsigned long sp_pass_ms;
static unsigned long sp_pass_cpu_percent;

bool sp_governor_on(void)
{
	return READ_ONCE(sp_converge_seconds);
}

static struct sp_mark sp_mark_now(void)
{
	return (struct sp_mark) {
		.time_ns = ktime_get_ns(),
		.cpu_ns = current->se.sum_exec_runtime,
	};
}

static u64 sp_pass_target_ns(void)
{
	return READ_ONCE(sp_converge_seconds) * NSEC_PER_SEC / SP_PASSES_TO_MERGE;
}

static u64 sp_time_off(u64 cpu_ns)
{
	unsigned int max_cpu = READ_ONCE(sp_converge_max_cpu);

	return div_u64(cpu_ns * (100 - max_cpu), max_cpu);
}

/* How many pages may be looked at for the nap that is made anyway. */
static unsigned long sp_pages_allowed(u64 nap_ns)
{
	unsigned int max_cpu = READ_ONCE(sp_converge_max_cpu);

	if (max_cpu >= 100)
		return SP_ROUND_MAX_PAGES;
	if (!sp_governor.page_ns)
		return SP_ROUND_FIRST_PAGES;
	return div64_u64(nap_ns * max_cpu, (100 - max_cpu) * sp_governor.page_ns);
}

/* How many pages a round must look at for the pass to end in time. */
static unsigned long sp_pages_needed(const struct sp_mark *now, u64 round_ns)
{
	/* A quarter is for naps that come out longer, and pages that come out dearer. */
	u64 target = sp_pass_target_ns() * 3 / 4;
	u64 spent = now->time_ns - sp_governor.pass.time_ns;

	/* The size is not known, or it grew: as fast as may be. */
	if (sp_governor.pass_pages <= sp_governor.done || spent >= target)
		return SP_ROUND_MAX_PAGES;
	return div64_u64((sp_governor.pass_pages - sp_governor.done) * round_ns,
			 target - spent) + 1;
}

/* A round begins: sets how many pages it is to look at. */
void sp_governor_round_begins(void)
{
	u64 nap_ns = max(READ_ONCE(sp_tunables.sleep_millisecs) * (u64)NSEC_PER_MSEC,
			 (u64)TICK_NSEC);
	struct sp_mark now;
	unsigned long pages;

	if (!sp_governor_on())
		return;
	now = sp_mark_now();
	pages = sp_pages_needed(&now, max(now.time_ns - sp_governor.round.time_ns, nap_ns));
	pages = min(pages, sp_pages_allowed(nap_ns));
	WRITE_ONCE(sp_tunables.pages_to_scan,
		   clamp(pages, 1UL, SP_ROUND_MAX_PAGES));
	sp_governor.round = now;
}

/* It ended, having looked at so many pages: what it cost is paid for by a nap. */
void sp_governor_round_ends(unsigned int pages)
{
	struct sp_mark now;
	u64 page_ns;

	if (!sp_governor_on())
		return;
	now = sp_mark_now();
	sp_governor.done += pages;
	/* Waking up costs, too. */
	sp_governor.nap_ns = sp_time_off(now.cpu_ns - (sp_governor.paid_cpu_ns ?:
						       sp_governor.round.cpu_ns));
	sp_governor.paid_cpu_ns = now.cpu_ns;
	if (!pages)
		return;
	page_ns = max(div64_u64(now.cpu_ns - sp_governor.round.cpu_ns, pages), 1ULL);
	/* Dearer pages count at once, cheaper ones by and by. */
	sp_governor.page_ns = max(page_ns, (3 * sp_governor.page_ns + page_ns) / 4);
}

unsigned long sp_governor_nap_ticks(void)
{
	return sp_governor_on() ? nsecs_to_jiffies(sp_governor.nap_ns) : 0;
}

/* A pass begins: the one before is accounted for, with the nap that paid for its end. */
void sp_governor_pass_begins(void)
{
	struct sp_mark now;

	if (!sp_governor_on())
		return;
	now = sp_mark_now();
	if (sp_governor.pass.time_ns) {
		u64 ns = now.time_ns - sp_governor.pass.time_ns;

		WRITE_ONCE(sp_pass_cpu_percent,
			   div64_u64((now.cpu_ns - sp_governor.pass.cpu_ns) * 100, ns ?: 1));
		WRITE_ONCE(sp_pass_ms, div_u64(ns, NSEC_PER_MSEC) ?: 1);
		sp_governor.pass_pages = sp_governor.done;
	}
	sp_governor.pass = now;
	sp_governor.done = 0;
}

/* Needs sp_scan_lock for writing. 0 seconds: off. */
void sp_governor_set(unsigned long seconds)
{
	if (!sp_governor_on()) {
		memset(&sp_governor, 0, sizeof(sp_governor));
		WRITE_ONCE(sp_pass_ms, 0);
		WRITE_ONCE(sp_pass_cpu_percent, 0);
	}
	WRITE_ONCE(sp_converge_seconds, seconds);
}

static ssize_t convergence_seconds_store(struct kobject *kobj, struct kobj_attribute *attr,
					 const char *buf, size_t count)
{
	unsigned int seconds;

	if (kstrtouint(buf, 10, &seconds))
		return -EINVAL;
	down_write(&sp_scan_lock);
	if (seconds)
		sp_advisor_set(false);
	sp_governor_set(seconds);
	up_write(&sp_scan_lock);
	sp_scan_retime();
	sp_scan_wake();
	return count;
}

static ssize_t convergence_max_cpu_store(struct kobject *kobj, struct kobj_attribute *attr,
					 const char *buf, size_t count)
{
	unsigned int percent;

	if (kstrtouint(buf, 10, &percent) || !percent || percent > 100)
		return -EINVAL;
	WRITE_ONCE(sp_converge_max_cpu, percent);
	return count;
}

static ssize_t convergence_state_show(struct kobject *kobj, struct kobj_attribute *attr,
				      char *buf)
{
	unsigned long ms = READ_ONCE(sp_pass_ms);
	const char *state = "off";

	if (sp_governor_on() && !ms)
		state = "starting";
	else if (sp_governor_on())
		state = ms * NSEC_PER_MSEC <= sp_pass_target_ns() ? "kept" : "missed";
	return sysfs_emit(buf, "%s\n", state);
}

static struct sp_attr sp_attr_convergence_seconds = {
	.attr = __ATTR(convergence_seconds, 0644, sp_count_show, convergence_seconds_store),
	.count = &sp_converge_seconds,
};

SP_STORED(convergence_max_cpu, &sp_converge_max_cpu, convergence_max_cpu_store);
SP_COUNT(convergence_pass_millisecs, 0400, &sp_pass_ms);
SP_COUNT(convergence_cpu_percent, 0400, &sp_pass_cpu_percent);

static struct sp_attr sp_attr_convergence_state = {
	.attr = __ATTR(convergence_state, 0400, convergence_state_show, NULL)
};

static struct attribute *sp_governor_attrs[] = {
	&sp_attr_convergence_seconds.attr.attr,
	&sp_attr_convergence_max_cpu.attr.attr,
	&sp_attr_convergence_pass_millisecs.attr.attr,
	&sp_attr_convergence_cpu_percent.attr.attr,
	&sp_attr_convergence_state.attr.attr,
	NULL,
};

/* Merged into the module's own group. */
const struct attribute_group sp_governor_group = {
	.name = "samepage",
	.attrs = sp_governor_attrs,
};
