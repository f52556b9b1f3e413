// SPDX-License-Identifier: GPL-2.0-only
/*
 * The scanner: walks registered memory, a block at a time, and merges.
 *
 * A batch is the part of one block that lies in one mergeable mapping. Its
 * pages are collected under mmap_lock with a reference each, their signatures
 * are taken, the references dropped, and only then are the pages merged, each
 * looked up anew: what was collected is a hint, a merge trusts nothing but what
 * it finds under the page-table lock.
 *
 * One thread scans, under sp_scan_mutex, which it drops between rounds of
 * pages_to_scan pages.
 */
#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "batch.h"

DEFINE_MUTEX(sp_scan_mutex);	/* slots, items, trees: see samepage.h */
struct sp_stats sp_stats;
unsigned long sp_run;

static DECLARE_WAIT_QUEUE_HEAD(sp_scan_work);
static DECLARE_WAIT_QUEUE_HEAD(sp_scan_nap);
static struct task_struct *sp_scanner;
static unsigned long sp_cursor_address;
static bool sp_enabled;			/* all tasks run our functions */
static unsigned int sp_adoptions = 2;	/* passes that look for latecomers */

static struct sp_batch sp_batch;	/* sp_scan_mutex; too large for the stack */

/* Any mergeable mapping left? Decides whether the mm stays registered. */
static bool sp_has_mergeable(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);
	struct vm_area_struct *vma;

	for_each_vma(vmi, vma)
		if (vma->vm_flags & VM_MERGEABLE)
			return true;
	return false;
}

/*
 * Collect the next batch of the address space at the cursor. False at its end;
 * the cursor stands at the next address space then.
 */
static bool sp_collect(struct sp_batch *batch, struct sp_mm *slot,
		       unsigned int budget)
{
	struct mm_struct *mm = slot->mm;
	enum sp_fate fate = SP_KEEP;
	struct vm_area_struct *vma;
	struct vma_iterator vmi;

	vma_iter_init(&vmi, mm, sp_cursor_address);
	*batch = (struct sp_batch) { .slot = slot, .budget = budget };
	mmap_read_lock(mm);
	if (sp_mm_exiting(mm))
		goto end_of_mm;
	for_each_vma(vmi, vma) {
		unsigned long start = max(sp_cursor_address, vma->vm_start);

		if (!(vma->vm_flags & VM_MERGEABLE) || !vma->anon_vma)
			continue;
		if (sp_collect_vma(batch, vma, start)) {
			mmap_read_unlock(mm);
			return true;
		}
		if (sp_mm_exiting(mm))
			break;
	}
end_of_mm:
	if (sp_mm_exiting(mm)) {
		fate = SP_DROP_EXITED;
		sp_cursor_address = 0;
	} else if (!sp_has_mergeable(mm)) {
		/* mmap_lock keeps MADV_MERGEABLE out until this is done. */
		fate = SP_DROP_IDLE;
		sp_cursor_address = 0;
	}
	sp_forget_range(slot, sp_cursor_address, ULONG_MAX);
	sp_cursor_address = 0;
	if (fate == SP_KEEP) {
		/* Once the cursor has left, the mm may be freed by its exit. */
		mmap_read_unlock(mm);
		sp_cursor_advance(slot, fate);
	} else {
		mmgrab(mm);
		sp_cursor_advance(slot, fate);
		mmap_read_unlock(mm);
		mmdrop(mm);
	}
	return false;
}

/* Forget the pages that were passed by: they are gone. */
static void sp_forget_absent(struct sp_batch *batch)
{
	struct sp_block *block = sp_block_find(batch->slot, batch->base);
	unsigned long addr;

	sp_forget_range(batch->slot, sp_cursor_address, batch->start);
	if (!block)
		return;
	for (addr = batch->start; addr < batch->end; addr += PAGE_SIZE)
		if (!(batch->present & BIT_ULL(sp_index(addr))))
			sp_slot_clear(block, sp_index(addr));
}

static void sp_process(struct sp_batch *batch)
{
	struct sp_block *block;
	unsigned int i;

	sp_take_signatures(batch);
	sp_forget_absent(batch);
	sp_cursor_address = batch->end;
	block = sp_block_get(batch->slot, batch->base);
	for (i = 0; i < batch->count; i++) {
		struct sp_found *found = &batch->found[i];

		if (block)
			sp_match_page(block, found);
		if (found->stable)
			put_page(found->page);
	}
}

/* A new pass begins. */
static struct sp_mm *sp_begin_pass(void)
{
	sp_advisor_pass_begins();
	/* Pages on per-CPU lists have a reference too many to be merged. */
	lru_add_drain_all();
	sp_stable_prune();
	if (sp_adoptions) {
		sp_adoptions--;
		sp_adopt_all();
	}
	sp_cursor_address = 0;
	return sp_cursor_advance(NULL, SP_KEEP);
}

void sp_cursor_reset(void)
{
	sp_cursor_home();
	sp_cursor_address = 0;
}

static void sp_scan(unsigned int budget)
{
	struct sp_mm *slot = sp_cursor_mm();

	if (!slot)
		slot = sp_begin_pass();
	if (!slot)
		return;
	while (slot && budget && !freezing(current)) {
		if (sp_collect(&sp_batch, slot, budget)) {
			budget = sp_batch.budget;
			sp_process(&sp_batch);
		}
		cond_resched();
		slot = sp_cursor_mm();
	}
	if (!slot) {
		sp_advisor_pass_ends();
		sp_stats.full_scans++;
	}
}

void sp_wait_while_offlining(void)
{
	while (test_bit(SP_RUN_OFFLINE_BIT, &sp_run)) {
		mutex_unlock(&sp_scan_mutex);
		wait_on_bit(&sp_run, SP_RUN_OFFLINE_BIT, TASK_UNINTERRUPTIBLE);
		mutex_lock(&sp_scan_mutex);
	}
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

static int sp_scan_thread(void *unused)
{
	set_freezable();
	set_user_nice(current, 5);
	while (!kthread_should_stop()) {
		mutex_lock(&sp_scan_mutex);
		sp_wait_while_offlining();
		if (sp_should_scan())
			sp_scan(READ_ONCE(sp_tunables.pages_to_scan));
		mutex_unlock(&sp_scan_mutex);

		if (sp_should_scan()) {
			unsigned int nap = READ_ONCE(sp_tunables.sleep_millisecs);

			wait_event_freezable_timeout(sp_scan_nap, sp_retimed(nap),
						     msecs_to_jiffies(nap));
		} else {
			wait_event_freezable(sp_scan_work,
					     sp_should_scan() || kthread_should_stop());
		}
	}
	return 0;
}

/* On return from disabling, the scanner is not in the middle of anything. */
void sp_scan_enable(bool enable)
{
	mutex_lock(&sp_scan_mutex);
	WRITE_ONCE(sp_enabled, enable);
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
