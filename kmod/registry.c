// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registered address spaces and the cursor that walks over them.
 *
 * sp_registry_lock covers the hash, the list and the cursor. The space under
 * the cursor belongs to the walker, who holds sp_scan_mutex, and so does one
 * that owns blocks: an exiting process frees neither, but passes mmap_lock once.
 * No walker is in its page tables then, and none enters again, as it finds
 * mm_users at zero.
 * The mm_struct itself is pinned by mmgrab() for as long as the space lives.
 */
#include <linux/hashtable.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "samepage.h"

static DEFINE_SPINLOCK(sp_registry_lock);
static DEFINE_HASHTABLE(sp_space_hash, 10);
static LIST_HEAD(sp_space_list);
static struct sp_space *sp_cursor;		/* NULL: before the first one */
static bool sp_insert_ahead;

static struct kmem_cache *sp_space_cache;

static struct sp_space *sp_find(struct mm_struct *mm)
{
	struct sp_space *space;

	hash_for_each_possible(sp_space_hash, space, hash, (unsigned long)mm)
		if (space->mm == mm)
			return space;
	return NULL;
}

bool sp_registry_empty(void)
{
	return list_empty(&sp_space_list);
}

bool sp_registered(struct mm_struct *mm)
{
	bool found;

	spin_lock(&sp_registry_lock);
	found = sp_find(mm);
	spin_unlock(&sp_registry_lock);
	return found;
}

static unsigned int sp_nr_registered(void)
{
	struct sp_space *space;
	unsigned int nr = 0;

	spin_lock(&sp_registry_lock);
	list_for_each_entry(space, &sp_space_list, list)
		nr++;
	spin_unlock(&sp_registry_lock);
	return nr;
}

/*
 * The registered mms that live, each with a reference for mmput(), in an array
 * for kvfree(). NULL without memory.
 */
struct mm_struct **sp_registry_hold(unsigned int *nr)
{
	unsigned int room = sp_nr_registered() + 1;
	struct mm_struct **mms = kvmalloc_array(room, sizeof(*mms), GFP_KERNEL);
	struct sp_space *space;

	*nr = 0;
	if (!mms)
		return NULL;
	spin_lock(&sp_registry_lock);
	list_for_each_entry(space, &sp_space_list, list)
		if (*nr < room && mmget_not_zero(space->mm))
			mms[(*nr)++] = space->mm;
	spin_unlock(&sp_registry_lock);
	return mms;
}

/*
 * The address spaces with records, in an array for kvfree(). NULL without memory.
 * Needs sp_scan_mutex, while which is held they stay.
 */
struct sp_space **sp_registry_recorded(unsigned int *nr)
{
	unsigned int room = sp_nr_registered() + 1;
	struct sp_space **spaces = kvmalloc_array(room, sizeof(*spaces), GFP_KERNEL);
	struct sp_space *space;

	*nr = 0;
	if (!spaces)
		return NULL;
	spin_lock(&sp_registry_lock);
	list_for_each_entry(space, &sp_space_list, list)
		if (*nr < room && !xa_empty(&space->blocks))
			spaces[(*nr)++] = space;
	spin_unlock(&sp_registry_lock);
	return spaces;
}

static void sp_free(struct sp_space *space, enum sp_fate fate)
{
	struct mm_struct *mm = space->mm;

	xa_destroy(&space->blocks);
	kmem_cache_free(sp_space_cache, space);
	/*
	 * A live process keeps MMF_VM_MERGE_ANY: its next mapping registers it
	 * again.
	 */
	if (fate == SP_DROP_EXITED)
		mm_flags_clear(MMF_VM_MERGE_ANY, mm);
	mm_flags_clear(MMF_VM_MERGEABLE, mm);
	mmdrop(mm);
}

struct sp_space *sp_cursor_space(void)
{
	return READ_ONCE(sp_cursor);
}

/*
 * Move the cursor from @done (NULL: from the start) to the next address space
 * and deal with @done, in one step: once the cursor has left it, a kept one may
 * be freed by its exit. Returns NULL at the end.
 */
struct sp_space *sp_cursor_advance(struct sp_space *done, enum sp_fate fate)
{
	struct list_head *next;

	spin_lock(&sp_registry_lock);
	next = done ? done->list.next : sp_space_list.next;
	sp_cursor = next == &sp_space_list ? NULL :
		    list_entry(next, struct sp_space, list);
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
 * A new address space is scanned last, when it has taken shape. Only while all
 * is being unmerged must the walk under way come to it: it may have inherited
 * merged pages.
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
	struct sp_space *space = kmem_cache_zalloc(sp_space_cache, GFP_KERNEL);
	bool was_empty;

	if (!space)
		return -ENOMEM;
	space->mm = mm;
	xa_init(&space->blocks);

	spin_lock(&sp_registry_lock);
	if (sp_find(mm)) {
		spin_unlock(&sp_registry_lock);
		kmem_cache_free(sp_space_cache, space);
		return 0;
	}
	/* Fork may have copied the parent's. */
	mm->ksm_merging_pages = 0;
	mm->ksm_rmap_items = 0;
	was_empty = list_empty(&sp_space_list);
	hash_add(sp_space_hash, &space->hash, (unsigned long)mm);
	if (sp_cursor && !sp_insert_ahead)
		list_add_tail(&space->list, &sp_cursor->list);
	else
		list_add_tail(&space->list, &sp_space_list);
	mmgrab(mm);
	mm_flags_set(MMF_VM_MERGEABLE, mm);
	spin_unlock(&sp_registry_lock);

	if (was_empty)
		sp_scan_wake();
	sp_trace_enter(mm);
	return 0;
}

/*
 * @mm is given up: its process is gone, or exec failed to set it up. In the
 * latter case it has a user still and the caller holds mmap_lock: the walker
 * finds it empty and drops it. False when it was not registered here.
 */
bool sp_exit(struct mm_struct *mm)
{
	struct sp_space *space;
	bool unused = false;

	spin_lock(&sp_registry_lock);
	space = sp_find(mm);
	if (space && space != sp_cursor && xa_empty(&space->blocks)) {
		hash_del(&space->hash);
		list_del(&space->list);
		unused = true;
	} else if (space && space != sp_cursor && sp_cursor) {
		/* Let the walker come to it soon. */
		list_move(&space->list, &sp_cursor->list);
	}
	spin_unlock(&sp_registry_lock);

	if (unused) {
		sp_free(space, SP_DROP_EXITED);
	} else if (space && sp_mm_exiting(mm)) {
		mmap_write_lock(mm);
		mmap_write_unlock(mm);
	}
	if (space)
		sp_trace_exit(mm);
	return space;
}

int sp_registry_init(void)
{
	sp_space_cache = KMEM_CACHE(sp_space, 0);
	return sp_space_cache ? 0 : -ENOMEM;
}

void sp_registry_destroy(void)
{
	kmem_cache_destroy(sp_space_cache);
}
