// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registered address spaces and the cursor that walks over them.
 *
 * sp_registry_lock covers the hash, the list and the cursor. The slot under
 * the cursor is not freed by an exiting process: it stays the walker's, which
 * holds sp_scan_mutex. A slot that still owns blocks is left to the walker
 * too; sp_exit() then waits for mmap_lock, so that no walker is in the page
 * tables once they are torn down (mm_users is zero: it will not enter again).
 * The mm_struct itself is pinned by mmgrab() for as long as the slot lives.
 */
#include <linux/hashtable.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "samepage.h"

static DEFINE_SPINLOCK(sp_registry_lock);
static DEFINE_HASHTABLE(sp_mm_hash, 10);
static LIST_HEAD(sp_mm_list);
static struct sp_mm *sp_cursor;		/* NULL: before the first one */
static bool sp_insert_ahead;

static struct kmem_cache *sp_mm_cache;

static struct sp_mm *sp_find(struct mm_struct *mm)
{
	struct sp_mm *slot;

	hash_for_each_possible(sp_mm_hash, slot, hash, (unsigned long)mm)
		if (slot->mm == mm)
			return slot;
	return NULL;
}

bool sp_registry_empty(void)
{
	return list_empty(&sp_mm_list);
}

bool sp_registered(struct mm_struct *mm)
{
	bool found;

	spin_lock(&sp_registry_lock);
	found = sp_find(mm);
	spin_unlock(&sp_registry_lock);
	return found;
}

static void sp_free(struct sp_mm *slot, enum sp_fate fate)
{
	struct mm_struct *mm = slot->mm;

	xa_destroy(&slot->blocks);
	kmem_cache_free(sp_mm_cache, slot);
	/*
	 * A live process keeps MMF_VM_MERGE_ANY: its next mapping registers it
	 * again.
	 */
	if (fate == SP_DROP_EXITED)
		clear_bit(MMF_VM_MERGE_ANY, &mm->flags);
	clear_bit(MMF_VM_MERGEABLE, &mm->flags);
	mmdrop(mm);
}

struct sp_mm *sp_cursor_mm(void)
{
	return READ_ONCE(sp_cursor);
}

/*
 * Move the cursor from @done (NULL: from the start) to the next address space
 * and deal with @done, in one step: once the cursor has left it, a kept one may
 * be freed by its exit. Returns NULL at the end.
 */
struct sp_mm *sp_cursor_advance(struct sp_mm *done, enum sp_fate fate)
{
	struct list_head *next;

	spin_lock(&sp_registry_lock);
	next = done ? done->list.next : sp_mm_list.next;
	sp_cursor = next == &sp_mm_list ? NULL :
		    list_entry(next, struct sp_mm, list);
	if (done && fate != SP_KEEP) {
		hash_del(&done->hash);
		list_del(&done->list);
	}
	spin_unlock(&sp_registry_lock);
	if (done && fate != SP_KEEP)
		sp_free(done, fate);
	return sp_cursor;
}

void sp_cursor_home(void)
{
	spin_lock(&sp_registry_lock);
	sp_cursor = NULL;
	spin_unlock(&sp_registry_lock);
}

/*
 * New address spaces go behind the cursor, to settle before they are scanned;
 * while everything is being unmerged they go ahead of it, or pages inherited
 * over fork would be missed.
 */
void sp_registry_insert_ahead(bool ahead)
{
	spin_lock(&sp_registry_lock);
	sp_insert_ahead = ahead;
	spin_unlock(&sp_registry_lock);
}

/* Register @mm; a second registration changes nothing. -ENOMEM. */
int sp_enter(struct mm_struct *mm)
{
	struct sp_mm *slot = kmem_cache_zalloc(sp_mm_cache, GFP_KERNEL);
	bool was_empty;

	if (!slot)
		return -ENOMEM;
	slot->mm = mm;
	xa_init(&slot->blocks);

	spin_lock(&sp_registry_lock);
	if (sp_find(mm)) {
		spin_unlock(&sp_registry_lock);
		kmem_cache_free(sp_mm_cache, slot);
		return 0;
	}
	was_empty = list_empty(&sp_mm_list);
	hash_add(sp_mm_hash, &slot->hash, (unsigned long)mm);
	if (sp_cursor && !sp_insert_ahead)
		list_add_tail(&slot->list, &sp_cursor->list);
	else
		list_add_tail(&slot->list, &sp_mm_list);
	mmgrab(mm);
	set_bit(MMF_VM_MERGEABLE, &mm->flags);
	spin_unlock(&sp_registry_lock);

	if (was_empty)
		sp_scan_wake();
	return 0;
}

/* The process of @mm is gone. False when it was not registered here. */
bool sp_exit(struct mm_struct *mm)
{
	struct sp_mm *slot;
	bool unused = false;

	spin_lock(&sp_registry_lock);
	slot = sp_find(mm);
	if (slot && slot != sp_cursor && xa_empty(&slot->blocks)) {
		hash_del(&slot->hash);
		list_del(&slot->list);
		unused = true;
	} else if (slot && slot != sp_cursor && sp_cursor) {
		/* Let the walker come to it soon. */
		list_move(&slot->list, &sp_cursor->list);
	}
	spin_unlock(&sp_registry_lock);

	if (unused) {
		sp_free(slot, SP_DROP_EXITED);
	} else if (slot) {
		mmap_write_lock(mm);
		mmap_write_unlock(mm);
	}
	return slot;
}

int sp_registry_init(void)
{
	sp_mm_cache = KMEM_CACHE(sp_mm, 0);
	return sp_mm_cache ? 0 : -ENOMEM;
}

void sp_registry_destroy(void)
{
	kmem_cache_destroy(sp_mm_cache);
}
