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
 * Several threads may scan. Each has one address space at a time in hand, to its
 * end or, where others wait, for a turn (turns.c), and works on it in rounds, under
 * sp_scan_lock for reading; pages_to_scan is for all of them together. A pass begins and
 * ends under sp_pass_mutex, when none has a space in hand: the one that comes to the end
 * last ends it.
 */
#include <linux/cpu.h>
#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sched/clock.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "batch.h"
#include "check.h"
#include "control.h"

#define SP_MAX_SCANNERS	16

DECLARE_RWSEM(sp_scan_lock);	/* see samepage.h */
struct sp_passes sp_passes;
unsigned long sp_run;
DEFINE_STATIC_KEY_FALSE(sp_parallel);

struct sp_scanner {
	struct task_struct *task;
	unsigned int nr;
	struct sp_space *space;		/* in hand */
	unsigned long addr;		/* all below is done */
	u64 since;			/* local_clock(): time from then on is the space's */
	u64 turn_ns;			/* what it had before, since it was taken in hand */
	unsigned int looked, found;	/* pages that are not accounted for yet */
	bool ended_pass;		/* in this round */
	bool idle;			/* there was nothing to do */
	struct sp_batch batch;
};

static DECLARE_WAIT_QUEUE_HEAD(sp_scan_work);
static DECLARE_WAIT_QUEUE_HEAD(sp_scan_nap);
static DEFINE_MUTEX(sp_threads_mutex);		/* starting and stopping them */
static struct sp_scanner *sp_scanners[SP_MAX_SCANNERS];
static unsigned int sp_nr_threads;		/* that may scan */
static bool sp_enabled;			/* all tasks run our functions */
static unsigned int sp_retimings;	/* how often naps were cut short */
static unsigned int sp_adoptions;	/* passes that look for latecomers yet */
static bool sp_reexamine, sp_refile;	/* at the next pass */

static DEFINE_MUTEX(sp_pass_mutex);	/* the pass under way */
static struct {
	bool under_way;
	atomic_t in_hand;		/* spaces that scanners have */
	bool reexamine;			/* what is settled counts for nothing */
	bool refile;			/* what another candidate stood for is not settled */
	unsigned long began;		/* jiffies */
	unsigned long next;		/* another one may begin, in jiffies */
	unsigned long drained;		/* per-CPU lists, in jiffies */
} sp_pass;

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

/* Account what was spent on the space in hand. */
static void sp_charge(struct sp_scanner *me)
{
	struct sp_domain *home = me->space->home;
	/* Clocks of unlike CPUs may differ. */
	u64 now = local_clock(), ns = max_t(s64, now - me->since, 0);

	if (home)
		atomic64_add(ns, &home->scan_ns);
	sp_registry_charge(me->space, ns, me->looked, me->found);
	me->since = now;
	me->turn_ns += ns;
	me->looked = 0;
	me->found = 0;
}

/* The scanner has nothing in hand any more. */
static void sp_hand_back(struct sp_scanner *me, enum sp_fate fate)
{
	struct sp_space *space = me->space;

	sp_charge(me);
	me->space = NULL;
	sp_registry_done(space, fate);
	atomic_dec(&sp_pass.in_hand);
}

static bool sp_turn_is_over(const struct sp_scanner *me)
{
	return sp_turns_shared(me->space->tenant) &&
	       me->turn_ns + local_clock() - me->since > SP_TURN_NS;
}

/* The scanner has nothing in hand: it is others' turn. */
static void sp_set_aside(struct sp_scanner *me)
{
	struct sp_space *space = me->space;

	sp_charge(me);
	me->space = NULL;
	sp_registry_set_aside(space, me->addr);
	atomic_dec(&sp_pass.in_hand);
}

/* As below, of a process that exits. It waits for mmap_lock, but not until all records are gone. */
static void sp_leave_exiting(struct sp_scanner *me)
{
	struct sp_space *space = me->space;

	mmap_read_unlock(space->mm);
	sp_forget_range(space, 0, ULONG_MAX);
	sp_records_unlock(space);
	sp_hand_back(me, SP_DROP_EXITED);
}

/* The scanner is at the end of its space, and holds its records and mmap_lock: is it needed any more? */
static void sp_leave(struct sp_scanner *me)
{
	struct sp_space *space = me->space;
	struct mm_struct *mm = space->mm;

	if (sp_mm_exiting(mm)) {
		sp_leave_exiting(me);
	} else if (sp_has_mergeable(mm) || sp_stays_registered(mm) || sp_registry_choice(space).by) {
		sp_forget_gap(space, me->addr, ULONG_MAX);
		sp_forget_unseen(space);
		sp_records_unlock(space);
		/* Once it is handed back, the mm may be freed by its exit. */
		mmap_read_unlock(mm);
		sp_hand_back(me, SP_KEEP);
	} else {
		sp_forget_range(space, 0, ULONG_MAX);
		sp_records_unlock(space);
		/* Whoever registers it again waits for mmap_lock. */
		mmgrab(mm);
		sp_hand_back(me, SP_DROP_IDLE);
		mmap_read_unlock(mm);
		mmdrop(mm);
	}
}

/*
 * Collect the next batch of the address space in hand. False at its end; there is
 * none in hand then.
 */
static bool sp_collect(struct sp_scanner *me, unsigned int budget)
{
	struct sp_batch *batch = &me->batch;
	struct mm_struct *mm = me->space->mm;
	struct vm_area_struct *vma;
	struct vma_iterator vmi;
	bool more = false;

	vma_iter_init(&vmi, mm, me->addr);
	batch->space = me->space;
	batch->at = me->addr;
	batch->budget = budget;
	batch->count = 0;
	batch->began = local_clock();
	batch->steps = 0;
	batch->reexamine = sp_pass.reexamine && me->space->tenant->due;
	batch->refile = sp_pass.refile && me->space->tenant->due;
	sp_records_lock(me->space);
	mmap_read_lock(mm);
	if (!sp_mm_exiting(mm)) {
		for_each_vma(vmi, vma) {
			unsigned long start = max(me->addr, vma->vm_start);

			if (!sp_vma_merges(vma)) {
				if (!sp_batch_takes_long(batch))
					continue;
				sp_forget_gap(me->space, batch->at, vma->vm_end);
				batch->at = vma->vm_end;
				break;
			}
			if (!sp_collect_vma(batch, vma, start) || sp_mm_exiting(mm))
				break;
		}
		me->addr = batch->at;
		more = vma && !sp_mm_exiting(mm);
	}
	/* What was collected comes first, even where there is nothing but the end behind it. */
	if (!more && !batch->count) {
		sp_leave(me);
		return false;
	}
	mmap_read_unlock(mm);
	sp_records_unlock(me->space);
	return true;
}

static void sp_process(struct sp_batch *batch)
{
	struct sp_found *found = batch->found, *end = found + batch->count;

	sp_take_signatures(batch);
	for (; found < end; found++)
		sp_match_page(batch, found);
}

/* A new pass begins: no scanner has anything in hand. */
static void sp_begin_pass(void)
{
	static unsigned long pruned;
	unsigned long interval;

	sp_pass.under_way = true;
	sp_advisor_pass_begins();
	sp_pass.began = jiffies;
	sp_trace_start_scan(sp_passes.full_scans, sp_counted(pages_tracked));
	/* A page on a per-CPU list is held by it, and would not be merged. */
	lru_add_drain_all();
	sp_pass.drained = jiffies;
	interval = msecs_to_jiffies(READ_ONCE(sp_tunables.chains_prune_millisecs));
	if (time_after_eq(jiffies, pruned + interval)) {
		pruned = jiffies;
		sp_stable_prune();
	}
	if (sp_adoptions) {
		sp_adoptions--;
		sp_adopt_all();
	}
	sp_pass.reexamine = xchg(&sp_reexamine, false);
	sp_pass.refile = xchg(&sp_refile, false);
	sp_registry_begin_pass();
}

/* Where one tenant's pass is long, others do not wait for its end. */
static void sp_drain_again(const struct sp_space *space)
{
	if (!sp_turns_shared(space->tenant) || time_before(jiffies, sp_pass.drained + HZ / 10))
		return;
	sp_pass.drained = jiffies;
	lru_add_drain_all();
}

static void sp_end_pass(struct sp_scanner *me)
{
	sp_registry_end();
	sp_pass.under_way = false;
	sp_advisor_pass_ends();
	sp_trace_stop_scan(sp_passes.full_scans, sp_counted(pages_tracked));
	WRITE_ONCE(sp_passes.full_scans, sp_passes.full_scans + 1);
	sp_huge_pass_ends();
	sp_check_pass();
	sp_pass.next = jiffies + time_before_eq(jiffies, sp_pass.began);
	me->ended_pass = true;
}

/* How many threads scan: the governor reckons with one. */
static unsigned int sp_nr_scanning(void)
{
	return sp_governor_on() ? 1 : READ_ONCE(sp_nr_threads);
}

/*
 * A pass over next to nothing is followed by a tick of rest even where no nap is
 * asked for: not to spin, and so that whoever waits for the end of a pass, acts
 * and waits for another one does not act in the middle of the next.
 */
static bool sp_may_begin(const struct sp_scanner *me)
{
	return !me->ended_pass && !sp_registry_empty() && me->nr < sp_nr_scanning() &&
	       time_after_eq(jiffies, sp_pass.next);
}

/*
 * Take the next address space of the pass in hand, the first one of a new pass if
 * need be; false when this round has no more.
 */
static bool sp_take_next(struct sp_scanner *me)
{
	mutex_lock(&sp_pass_mutex);
	if (!sp_pass.under_way && sp_may_begin(me))
		sp_begin_pass();
	if (sp_pass.under_way && me->nr < sp_nr_scanning())
		me->space = sp_registry_take_turn();
	if (me->space) {
		atomic_inc(&sp_pass.in_hand);
		sp_drain_again(me->space);
	} else if (sp_pass.under_way && sp_turns_over() && !atomic_read(&sp_pass.in_hand)) {
		sp_end_pass(me);
	}
	me->idle = !me->space && (!me->ended_pass || time_before(jiffies, sp_pass.next));
	mutex_unlock(&sp_pass_mutex);
	return me->space;
}

/* A turn begins with the space in hand; false if it cannot be in the domain where it belongs. */
static bool sp_begin_turn(struct sp_scanner *me)
{
	me->since = local_clock();
	me->turn_ns = 0;
	me->looked = 0;
	me->found = 0;
	if (sp_domain_settle(me->space)) {
		me->addr = me->space->resume;
		return true;
	}
	sp_hand_back(me, SP_KEEP);
	return false;
}

/* Take the next address space that can be where it belongs; others cost something of @left, too. */
static bool sp_take_settled(struct sp_scanner *me, unsigned int *left)
{
	while (sp_take_next(me)) {
		if (sp_begin_turn(me))
			return true;
		if (*left)
			--*left;
		if (!*left || freezing(current))
			return false;
		cond_resched();
	}
	return false;
}

/* A tunable was changed: what is settled is to be looked at once more. */
void sp_scan_reexamine(void)
{
	WRITE_ONCE(sp_reexamine, true);
}

/* A candidate is gone that stood for others: one of them takes its place. */
void sp_scan_refile_forked(void)
{
	WRITE_ONCE(sp_refile, true);
}

/* The pass under way is given up. Needs sp_scan_lock for writing. */
void sp_scan_reset(void)
{
	unsigned int i;

	for (i = 0; i < SP_MAX_SCANNERS && sp_scanners[i]; i++)
		sp_scanners[i]->space = NULL;
	sp_registry_end();
	sp_pass.under_way = false;
	atomic_set(&sp_pass.in_hand, 0);
}

/* A turn goes on, for a batch. Returns what is left of @budget. */
static unsigned int sp_scan_batch(struct sp_scanner *me, unsigned int budget)
{
	bool shared = sp_turns_shared(me->space->tenant);

	if (sp_collect(me, budget)) {
		me->looked += budget - me->batch.budget;
		me->found += me->batch.count;
		sp_process(&me->batch);
	}
	if (me->space && sp_turn_is_over(me))
		sp_set_aside(me);
	/* A tenant with nothing to look at may be back at once, and again. */
	return me->batch.budget - (shared && me->batch.budget == budget);
}

/* A round. Returns how much of @budget it used. */
static unsigned int sp_scan(struct sp_scanner *me, unsigned int budget)
{
	unsigned int left = budget;

	me->ended_pass = false;
	me->idle = false;
	me->since = local_clock();
	while ((me->space || sp_take_settled(me, &left)) && left && !freezing(current)) {
		left = sp_scan_batch(me, left);
		cond_resched();
	}
	if (me->space)
		sp_charge(me);
	return budget - left;
}

static bool sp_should_scan(const struct sp_scanner *me)
{
	return READ_ONCE(sp_enabled) && (READ_ONCE(sp_run) & SP_RUN_MERGE) &&
	       (me->nr < sp_nr_scanning() || me->space) && !sp_registry_empty();
}

/*
 * The last processes are gone, but not all that was kept of theirs: the scanner came by
 * before their memory was unmapped.
 */
static bool sp_should_reap(const struct sp_scanner *me)
{
	return !me->nr && READ_ONCE(sp_enabled) && (READ_ONCE(sp_run) & SP_RUN_MERGE) &&
	       sp_registry_empty() && sp_counted(kept);
}

static void sp_reap(void)
{
	mutex_lock(&sp_pass_mutex);
	sp_stable_prune();
	mutex_unlock(&sp_pass_mutex);
}

void sp_scan_wake(void)
{
	wake_up_interruptible(&sp_scan_work);
}

/* The time to sleep was changed: the present nap is cut short. */
void sp_scan_retime(void)
{
	WRITE_ONCE(sp_retimings, sp_retimings + 1);
	wake_up_interruptible(&sp_scan_nap);
}

static bool sp_retimed(unsigned int before)
{
	return before != READ_ONCE(sp_retimings) || kthread_should_stop();
}

/* Wait until it is time for the next round, or there is something to scan. */
static void sp_rest(struct sp_scanner *me)
{
	unsigned int before = READ_ONCE(sp_retimings);
	unsigned long ticks = msecs_to_jiffies(READ_ONCE(sp_tunables.sleep_millisecs));

	ticks = max3(ticks, me->nr ? 0 : sp_governor_nap_ticks(), (unsigned long)me->idle);
	if (sp_should_scan(me))
		wait_event_freezable_timeout(sp_scan_nap, sp_retimed(before), ticks);
	else
		wait_event_freezable_timeout(sp_scan_work, sp_should_scan(me) || kthread_should_stop(),
					     sp_should_reap(me) ? HZ : MAX_SCHEDULE_TIMEOUT);
}

/* What a round of one of the threads may look at, all others that have something to do taken into account. */
static unsigned int sp_budget(void)
{
	unsigned int sharing = min(sp_nr_scanning(), sp_registry_count());

	if (!sp_turns_waiting())
		sharing = min_t(unsigned int, sharing, atomic_read(&sp_pass.in_hand));
	return DIV_ROUND_UP_ULL(READ_ONCE(sp_tunables.pages_to_scan), max(sharing, 1U));
}

static void sp_round(struct sp_scanner *me)
{
	if (me->nr) {
		sp_scan(me, sp_budget());
		return;
	}
	if (!READ_ONCE(sp_pass.under_way))
		sp_governor_pass_begins();
	sp_governor_round_begins();
	sp_governor_round_ends(sp_scan(me, sp_budget()));
}

static int sp_scan_thread(void *arg)
{
	struct sp_scanner *me = arg;

	set_freezable();
	set_user_nice(current, 5);	/* as in-tree's ksmd */
	for (; !kthread_should_stop(); sp_rest(me)) {
		sp_scan_lock_shared();
		if (sp_should_scan(me))
			sp_round(me);
		else if (sp_should_reap(me))
			sp_reap();
		if (!me->nr)
			sp_reserve_adjust();
		up_read(&sp_scan_lock);
	}
	return 0;
}

/* CPU time of all scanners, in ns. */
u64 sp_scan_cpu_ns(void)
{
	u64 ns = 0;
	unsigned int i;

	for (i = 0; i < SP_MAX_SCANNERS && sp_scanners[i]; i++)
		ns += READ_ONCE(sp_scanners[i]->task->se.sum_exec_runtime);
	return ns;
}

/* Are all hooks in force? Needs sp_scan_lock. */
bool sp_scan_enabled(void)
{
	return sp_enabled;
}

/* On return from disabling, no scanner is in the middle of anything. */
void sp_scan_enable(bool enable)
{
	down_write(&sp_scan_lock);
	WRITE_ONCE(sp_enabled, enable);
	sp_adoptions = 2;
	up_write(&sp_scan_lock);
	if (enable)
		sp_scan_wake();
}

/* The thread number @nr, which waits until it may scan. 0 or an errno. */
static int sp_start_scanner(unsigned int nr)
{
	struct sp_scanner *me = kzalloc(sizeof(*me), GFP_KERNEL);
	struct task_struct *task;

	if (!me)
		return -ENOMEM;
	me->nr = nr;
	task = kthread_create(sp_scan_thread, me, nr ? "samepaged/%u" : "samepaged", nr);
	if (IS_ERR(task)) {
		kfree(me);
		return PTR_ERR(task);
	}
	me->task = task;
	down_write(&sp_scan_lock);
	sp_scanners[nr] = me;
	up_write(&sp_scan_lock);
	wake_up_process(task);
	return 0;
}

long sp_scan_threads(void)
{
	return READ_ONCE(sp_nr_threads);
}

/*
 * So many threads share the work from now on. One that has an address space in hand
 * brings its turn to its end. 0 or an errno; -EINVAL: too many, or none.
 */
int sp_scan_set_threads(unsigned int threads)
{
	unsigned int nr;
	int err = 0;

	if (!threads || threads > SP_MAX_SCANNERS)
		return -EINVAL;
	mutex_lock(&sp_threads_mutex);
	for (nr = 0; nr < threads && !err; nr++)
		if (!sp_scanners[nr])
			err = sp_start_scanner(nr);
	if (!err) {
		/* In this order: memory goes offline under it, too, and waits for sp_scan_lock. */
		cpus_read_lock();
		sp_scan_lock_all();
		WRITE_ONCE(sp_nr_threads, threads);
		/* For good: nobody can tell whether one that was put to rest is done. */
		if (threads > 1)
			static_branch_enable_cpuslocked(&sp_parallel);
		up_write(&sp_scan_lock);
		cpus_read_unlock();
		sp_scan_wake();
	}
	mutex_unlock(&sp_threads_mutex);
	return err;
}

int sp_scan_start(void)
{
	/* A thread for each four processors, as far as four. */
	int err = sp_scan_set_threads(clamp(num_online_cpus() / 4, 1U, 4U));

	if (err)
		sp_scan_stop();
	return err;
}

void sp_scan_stop(void)
{
	unsigned int nr;

	for (nr = 0; nr < SP_MAX_SCANNERS && sp_scanners[nr]; nr++) {
		kthread_stop(sp_scanners[nr]->task);
		kfree(sp_scanners[nr]);
		sp_scanners[nr] = NULL;
	}
}
