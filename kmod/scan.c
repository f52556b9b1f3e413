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

#include "samepage.h"

DEFINE_MUTEX(sp_scan_mutex);
struct sp_stats sp_stats;
unsigned long sp_run;

static DECLARE_WAIT_QUEUE_HEAD(sp_scan_work);
static DECLARE_WAIT_QUEUE_HEAD(sp_scan_nap);
static struct task_struct *sp_scanner;
static unsigned long sp_cursor_address;
static bool sp_enabled;			/* all tasks run our functions */
static unsigned int sp_adoptions = 2;	/* passes that look for latecomers */

struct sp_batch {
	struct sp_mm *slot;
	unsigned long base;	/* of the block */
	unsigned long start;	/* what was looked at, exclusive end */
	unsigned long end;
	unsigned int budget;
	unsigned int count;	/* pages in page[] */
	u64 present;		/* slots whose page is there */
	struct sp_found {
		struct page *page;
		struct sp_stable *stable;	/* merged already, or NULL */
		u64 signature;
		u16 nid;
		u8 index;
	} found[SP_BLOCK_PAGES];
};

static struct sp_batch sp_batch;	/* sp_scan_mutex; too large for the stack */

static unsigned int sp_index(unsigned long addr)
{
	return (addr & ~SP_BLOCK_MASK) >> PAGE_SHIFT;
}

/* Does the slot say that the page shares @stable already? */
static bool sp_known_sharer(struct sp_block *block, unsigned int index,
			    struct sp_stable *stable)
{
	struct sp_item *item = block ? sp_slot_item(block, index) : NULL;

	return item && item->state == SP_SHARER && item->stable == stable;
}

/* Note one page under its page-table lock. */
static void sp_collect_page(struct sp_batch *batch, unsigned long addr,
			    struct page *page)
{
	unsigned int index = sp_index(addr);
	struct folio *folio = page_folio(page);
	struct sp_block *block;
	struct sp_found *found;

	if (folio_is_zone_device(folio) || !folio_test_anon(folio))
		return;
	if (!batch->present) {
		batch->base = addr & SP_BLOCK_MASK;
		batch->start = addr;
	}
	batch->present |= BIT_ULL(index);
	batch->budget--;

	block = sp_block_find(batch->slot, addr);
	found = &batch->found[batch->count];
	found->stable = NULL;
	if (folio_test_ksm(folio)) {
		found->stable = sp_folio_stable(folio);
		if (!found->stable || sp_known_sharer(block, index, found->stable)) {
			sp_stats.pages_scanned++;
			return;
		}
	} else if (sp_tunables.smart_scan && block && sp_slot_skip(block, index)) {
		sp_stats.pages_skipped++;
		batch->budget++;
		return;
	}
	sp_stats.pages_scanned++;
	found->page = page;
	found->index = index;
	folio_get(folio);
	batch->count++;
}

/* May the page at @addr still go into the batch? */
static bool sp_batch_takes(const struct sp_batch *batch, unsigned long addr)
{
	return !batch->present ||
	       ((addr & SP_BLOCK_MASK) == batch->base && batch->budget);
}

static void sp_collect_huge(struct sp_batch *batch, struct page *page,
			    unsigned long addr, unsigned long end)
{
	for (; addr < end && sp_batch_takes(batch, addr); addr += PAGE_SIZE, page++)
		sp_collect_page(batch, addr, page);
	batch->end = addr;
}

static int sp_collect_pmd(pmd_t *pmd, unsigned long addr, unsigned long end,
			  struct mm_walk *walk)
{
	struct sp_batch *batch = walk->private;
	struct page *page;
	pmd_t huge;
	spinlock_t *ptl;
	pte_t *start, *ptep;

	if (sp_mm_exiting(walk->mm))
		return 1;
	cond_resched();
	huge = pmdp_get_lockless(pmd);
	if (!pmd_present(huge))
		return 0;
	if (pmd_leaf(huge)) {
		ptl = pmd_lock(walk->mm, pmd);
		huge = pmdp_get(pmd);
		page = pmd_present(huge) && pmd_leaf(huge) ?
			vm_normal_page_pmd(walk->vma, addr & PMD_MASK, huge) : NULL;
		if (page)
			sp_collect_huge(batch, page + ((addr & ~PMD_MASK) >> PAGE_SHIFT),
					addr, end);
		spin_unlock(ptl);
		return batch->present != 0;
	}
	start = pte_offset_map_lock(walk->mm, pmd, addr, &ptl);
	if (!start)
		return 0;
	for (ptep = start; addr < end && sp_batch_takes(batch, addr);
	     ptep++, addr += PAGE_SIZE) {
		pte_t entry = ptep_get(ptep);

		if (!pte_present(entry))
			continue;
		page = vm_normal_page(walk->vma, addr, entry);
		if (page)
			sp_collect_page(batch, addr, page);
	}
	pte_unmap_unlock(start, ptl);
	batch->end = addr;
	return batch->present != 0;
}

static const struct mm_walk_ops sp_collect_ops = {
	.pmd_entry = sp_collect_pmd,
	.walk_lock = PGWALK_RDLOCK,
};

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
	struct vm_area_struct *vma;
	enum sp_fate fate = SP_KEEP;
	VMA_ITERATOR(vmi, mm, sp_cursor_address);

	*batch = (struct sp_batch) { .slot = slot, .budget = budget };
	mmap_read_lock(mm);
	if (sp_mm_exiting(mm))
		goto end_of_mm;
	for_each_vma(vmi, vma) {
		unsigned long start = max(sp_cursor_address, vma->vm_start);

		if (!(vma->vm_flags & VM_MERGEABLE) || !vma->anon_vma)
			continue;
		walk_page_range_vma(vma, start, vma->vm_end, &sp_collect_ops, batch);
		if (batch->present) {
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

/*
 * Take signatures and drop the references: a huge page can only be split
 * without. A merged page keeps its own, and thereby its stable node.
 */
static void sp_take_signatures(struct sp_batch *batch)
{
	unsigned int i;

	for (i = 0; i < batch->count; i++) {
		struct sp_found *found = &batch->found[i];

		found->nid = sp_page_nid(page_to_pfn(found->page));
		if (!found->stable)
			found->signature = sp_signature(found->page);
	}
	for (i = 0; i < batch->count; i++)
		if (!batch->found[i].stable)
			put_page(batch->found[i].page);
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

static void sp_count_merge(int err)
{
	if (err)
		sp_stats.merges_failed++;
	else
		sp_stats.merges++;
}

/* Share an existing merged page of this content. False when there is none. */
static bool sp_try_stable(struct sp_item *item, const struct sp_key *key)
{
	struct sp_stable *stable;
	int err = -ESTALE;

	while (err == -ESTALE) {
		stable = sp_stable_find(key);
		if (!stable)
			return false;
		err = sp_merge_into(stable, item);
	}
	sp_count_merge(err);
	return true;
}

/*
 * Merge the page with @twin of the unstable tree, whose page becomes the merged
 * one. -EAGAIN when the twin is stale; it is out of the tree then.
 */
static int sp_merge_twins(struct sp_item *item, struct sp_item *twin,
			  const struct sp_key *key)
{
	struct sp_stable *stable = sp_stable_alloc(key);
	int err;

	if (!stable)
		return -ENOMEM;
	err = sp_make_stable(stable, twin);
	if (err) {
		sp_stable_free_unused(stable);
		if (err != -EBUSY) {
			sp_stats.stale_candidates++;
			sp_slot_drop_item(twin->block, twin->index);
		}
		return err;
	}
	sp_stable_insert(stable);
	err = sp_merge_into(stable, item);
	sp_count_merge(err);
	if (err) {
		/* One sharer alone saves nothing. */
		sp_break_cow(sp_item_mm(twin), sp_item_address(twin));
		sp_slot_drop_item(twin->block, twin->index);
		return -EBUSY;
	}
	return 0;
}

static void sp_try_unstable(struct sp_item *item, const struct sp_key *key)
{
	struct sp_item *twin = sp_unstable_find(key);
	int err = -EAGAIN;

	if (twin == item)
		return;
	if (twin)
		err = sp_merge_twins(item, twin, key);
	if ((err == -EAGAIN || err == -ENOENT) && item->state == SP_LOOSE &&
	    !sp_unstable_find(key))
		sp_unstable_insert(item, key);
}

/* A page that stayed the same for a pass: look for its twin. */
static void sp_merge_page(struct sp_block *block, unsigned int index, u64 signature,
			  u16 nid)
{
	struct sp_key key = { signature, block->owner->domain, nid };
	struct sp_item *item = sp_slot_item(block, index);
	unsigned long addr = block->base + ((unsigned long)index << PAGE_SHIFT);

	if (sp_tunables.use_zero_pages && signature == sp_zero_signature) {
		int err = sp_merge_zero(block->owner->mm, addr);

		sp_count_merge(err);
		if (!err)
			sp_slot_clear(block, index);
		if (!err || err == -ENOENT)
			return;
	}
	if (!item)
		item = sp_slot_promote(block, index);
	if (!item)
		return;
	if (!sp_try_stable(item, &key))
		sp_try_unstable(item, &key);
	if (item->state == SP_LOOSE)
		sp_slot_watch(block, index, signature);
}

/* A merged page that came here by fork: note that it is shared here, too. */
static void sp_adopt_sharer(struct sp_block *block, unsigned int index,
			    struct sp_stable *stable)
{
	struct sp_item *item;

	sp_slot_drop_item(block, index);
	item = sp_slot_promote(block, index);
	if (item && sp_merge_into(stable, item) && item->state == SP_LOOSE)
		sp_slot_drop_item(block, index);
}

static void sp_process_page(struct sp_block *block, struct sp_found *found)
{
	struct sp_item *item = sp_slot_item(block, found->index);

	if (found->stable) {
		sp_adopt_sharer(block, found->index, found->stable);
		return;
	}
	if (item && item->state == SP_SHARER)	/* written to since: copied */
		sp_slot_drop_item(block, found->index);
	if (sp_slot_unchanged(block, found->index, found->signature))
		sp_merge_page(block, found->index, found->signature,
			      found->nid);
	else
		sp_slot_watch(block, found->index, found->signature);
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
			sp_process_page(block, found);
		if (found->stable)
			put_page(found->page);
	}
}

/* A new pass begins. */
static struct sp_mm *sp_begin_pass(void)
{
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
	if (!slot)
		sp_stats.full_scans++;
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

			wait_event_freezable_timeout(sp_scan_nap,
				nap != READ_ONCE(sp_tunables.sleep_millisecs) ||
				kthread_should_stop(),
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
