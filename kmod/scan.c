// SPDX-License-Identifier: GPL-2.0-only
/*
 * The scanner: walks registered memory and merges.
 *
 * A batch is what there is to do in a stretch of one address space. Its pages
 * are collected under mmap_lock with a reference each, their signatures are
 * taken, the references dropped, and only then are the pages merged, each looked
 * up anew: what was collected is a hint, a merge trusts nothing but what it
 * finds under the page-table lock.
 *
 * One thread scans, under sp_scan_mutex, which it drops between rounds of
 * pages_to_scan pages.
 */
#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "batch.h"
#include "check.h"

DEFINE_MUTEX(sp_scan_mutex);	/* slots, items, trees: see samepage.h */
struct sp_stats sp_stats;
unsigned long sp_run;

static DECLARE_WAIT_QUEUE_HEAD(sp_scan_work);
static DECLARE_WAIT_QUEUE_HEAD(sp_scan_nap);
static struct task_struct *sp_scanner;
static unsigned long sp_cursor_address;
static bool sp_enabled;			/* all tasks run our functions */
static unsigned int sp_adoptions;	/* passes that look for latecomers yet */
static unsigned long sp_pass_began;	/* jiffies */
static bool sp_pass_was_short;		/* the last round ended one */

static bool sp_reexamine, sp_refile;	/* at the next pass */
static struct sp_batch sp_batch;	/* sp_scan_mutex; too large for the stack */

/* Any mergeable mapping left? Decides whether the mm stays registered. */
bool sp_has_mergeable(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;

	for_each_vma(vmi, vma)
		if (vma->vm_flags & VM_MERGEABLE)
			return true;
	return false;
}

/* The cursor is at the end of @space: is it needed any more? */
static void sp_leave(struct sp_space *space)
{
	struct mm_struct *mm = space->mm;
	enum sp_fate fate = SP_KEEP;

	if (sp_mm_exiting(mm))
		fate = SP_DROP_EXITED;
	else if (!sp_has_mergeable(mm) && !sp_stays_registered(mm))
		/* Whoever registers it again waits for mmap_lock. */
		fate = SP_DROP_IDLE;
	if (fate == SP_KEEP) {
		sp_forget_gap(space, sp_cursor_address, ULONG_MAX);
		sp_forget_unseen(space);
	} else {
		sp_forget_range(space, 0, ULONG_MAX);
	}
	sp_cursor_address = 0;
	if (fate == SP_KEEP) {
		/* Once the cursor has left, the mm may be freed by its exit. */
		mmap_read_unlock(mm);
		sp_cursor_advance(space, fate);
	} else {
		mmgrab(mm);
		sp_cursor_advance(space, fate);
		mmap_read_unlock(mm);
		mmdrop(mm);
	}
}

/*
 * Collect the next batch of the address space at the cursor. False at its end;
 * the cursor stands at the next address space then.
 */
static bool sp_collect(struct sp_batch *batch, struct sp_space *space,
		       unsigned int budget)
{
	struct mm_struct *mm = space->mm;
	struct vm_area_struct *vma;
	struct vma_iterator vmi;

	vma_iter_init(&vmi, mm, sp_cursor_address);
	batch->space = space;
	batch->at = sp_cursor_address;
	batch->budget = budget;
	batch->count = 0;
	mmap_read_lock(mm);
	if (!sp_mm_exiting(mm)) {
		for_each_vma(vmi, vma) {
			unsigned long start = max(sp_cursor_address, vma->vm_start);

			if (!sp_vma_merges(vma))
				continue;
			if (!sp_collect_vma(batch, vma, start) || sp_mm_exiting(mm))
				break;
		}
		sp_cursor_address = batch->at;
		if (vma && !sp_mm_exiting(mm)) {
			mmap_read_unlock(mm);
			return true;
		}
	}
	if (batch->count) {
		/* These first; there is nothing but the end behind them. */
		mmap_read_unlock(mm);
		return true;
	}
	sp_leave(space);
	return false;
}

static void sp_process(struct sp_batch *batch)
{
	unsigned int i;

	sp_take_signatures(batch);
	for (i = 0; i < batch->count; i++)
		sp_match_page(batch, &batch->found[i]);
}

/* A new pass begins. */
static struct sp_space *sp_begin_pass(void)
{
	static unsigned long pruned;
	unsigned long interval;

	sp_advisor_pass_begins();
	sp_pass_began = jiffies;
	sp_trace_start_scan(sp_stats.full_scans, sp_stats.pages_tracked);
	/* A page on a per-CPU list is held by it, and would not be merged. */
	lru_add_drain_all();
	interval = msecs_to_jiffies(READ_ONCE(sp_tunables.chains_prune_millisecs));
	if (time_after_eq(jiffies, pruned + interval)) {
		pruned = jiffies;
		sp_stable_prune();
	}
	if (sp_adoptions) {
		sp_adoptions--;
		sp_adopt_all();
	}
	sp_batch.reexamine = xchg(&sp_reexamine, false);
	sp_batch.refile = sp_refile;
	sp_refile = false;
	sp_cursor_address = 0;
	return sp_cursor_advance(NULL, SP_KEEP);
}

/* A tunable was changed: what is settled is to be looked at once more. */
void sp_scan_reexamine(void)
{
	WRITE_ONCE(sp_reexamine, true);
}

/* A candidate is gone that stood for others: one of them takes its place. */
void sp_scan_refile_forked(void)
{
	sp_refile = true;
}

void sp_cursor_reset(void)
{
	sp_cursor_home();
	sp_cursor_address = 0;
}

/* A round. Returns how much of @budget it used. */
static unsigned int sp_scan(unsigned int budget)
{
	struct sp_space *space = sp_cursor_space();
	unsigned int left = budget;

	sp_pass_was_short = false;
	if (!space)
		space = sp_begin_pass();
	if (!space)
		return 0;
	while (space && left && !freezing(current)) {
		if (sp_collect(&sp_batch, space, left))
			sp_process(&sp_batch);
		left = sp_batch.budget;
		cond_resched();
		space = sp_cursor_space();
	}
	if (!space) {
		sp_advisor_pass_ends();
		sp_trace_stop_scan(sp_stats.full_scans, sp_stats.pages_tracked);
		sp_stats.full_scans++;
		sp_huge_pass_ends();
		sp_check_pass();
		sp_pass_was_short = time_before_eq(jiffies, sp_pass_began);
	}
	return budget - left;
}

static bool sp_should_scan(void)
{
	return READ_ONCE(sp_enabled) && (READ_ONCE(sp_run) & SP_RUN_MERGE) &&
	       !sp_registry_empty();
}

void sp_scan_wake(void)
{
	wake_up_interruptible(&sp_scan_work);
}

/* The time to sleep was changed: the present nap is cut short. */
void sp_scan_retime(void)
{
	wake_up_interruptible(&sp_scan_nap);
}

static bool sp_retimed(unsigned int nap)
{
	return nap != READ_ONCE(sp_tunables.sleep_millisecs) || kthread_should_stop();
}

/*
 * Wait until it is time for the next round, or there is something to scan. A
 * pass over next to nothing is followed by a tick of sleep even where none is
 * asked for: not to spin, and so that whoever waits for the end of a pass, acts
 * and waits for another one does not act in the middle of the next.
 */
static void sp_rest(void)
{
	unsigned int nap = READ_ONCE(sp_tunables.sleep_millisecs);
	unsigned long ticks = max3(msecs_to_jiffies(nap), sp_governor_nap_ticks(),
				   (unsigned long)sp_pass_was_short);

	if (sp_should_scan())
		wait_event_freezable_timeout(sp_scan_nap, sp_retimed(nap), ticks);
	else
		wait_event_freezable(sp_scan_work,
				     sp_should_scan() || kthread_should_stop());
}

static int sp_scan_thread(void *unused)
{
	set_freezable();
	set_user_nice(current, 5);	/* as in-tree's ksmd */
	for (; !kthread_should_stop(); sp_rest()) {
		mutex_lock(&sp_scan_mutex);
		sp_wait_while_offlining();
		if (sp_should_scan()) {
			if (!sp_cursor_space())
				sp_governor_pass_begins();
			sp_governor_round_begins();
			sp_governor_round_ends(sp_scan(READ_ONCE(sp_tunables.pages_to_scan)));
		}
		mutex_unlock(&sp_scan_mutex);
	}
	return 0;
}

/* On return from disabling, the scanner is not in the middle of anything. */
void sp_scan_enable(bool enable)
{
	mutex_lock(&sp_scan_mutex);
	WRITE_ONCE(sp_enabled, enable);
	sp_adoptions = 2;
	mutex_unlock(&sp_scan_mutex);
	if (enable)
		sp_scan_wake();
}

int sp_scan_start(void)
{
	struct task_struct *task = kthread_run(sp_scan_thread, NULL, "samepaged");

	if (IS_ERR(task))
		return PTR_ERR(task);
	sp_scanner = task;
	return 0;
}

void sp_scan_stop(void)
{
	if (sp_scanner)
		kthread_stop(sp_scanner);
	sp_scanner = NULL;
}
