// SPDX-License-Identifier: GPL-2.0-only
/*
 * Numbers of blocks, so that a link between pages takes four bytes: a table of
 * tables, with the free numbers chained through their entries. Never shrinks
 * but when the module goes. Free numbers are guarded by a mutex of their own;
 * numbers that are in use may be looked up at any time, under RCU because the
 * outer table may move.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "samepage.h"

#define SP_MAX_IDS	(U32_MAX / SP_BLOCK_PAGES)
#define SP_LEAVES	512U	/* a page of them: for 64 GiB */

union sp_id *__rcu *sp_leaves;
static u32 sp_nr_leaves, sp_max_leaves;
static u32 sp_free_id;			/* 0: none */
static DEFINE_MUTEX(sp_ids_mutex);

/* A leaf more, all of its numbers free but for 0, which stands for none. */
static bool sp_add_leaf(gfp_t gfp)
{
	u32 id = sp_nr_leaves << SP_LEAF_SHIFT, end = id + SP_LEAF_IDS;
	union sp_id **leaves = rcu_dereference_raw(sp_leaves);

	if (end > SP_MAX_IDS)
		return false;
	if (sp_nr_leaves == sp_max_leaves) {
		u32 max = max(SP_LEAVES, 2 * sp_max_leaves);
		union sp_id **more = kvcalloc(max, sizeof(*more), gfp);

		if (!more)
			return false;
		if (leaves)
			memcpy(more, leaves, sp_nr_leaves * sizeof(*more));
		rcu_assign_pointer(sp_leaves, more);
		if (leaves)
			synchronize_rcu();
		kvfree(leaves);
		leaves = more;
		sp_max_leaves = max;
	}
	leaves[sp_nr_leaves] = (union sp_id *)get_zeroed_page(gfp);
	if (!leaves[sp_nr_leaves])
		return false;
	sp_nr_leaves++;
	while (end-- > max(id, 1U)) {
		sp_id_entry(end)->next_free = sp_free_id;
		sp_free_id = end;
	}
	return true;
}

/* Give the block a number; false without memory. */
bool sp_block_id_get(struct sp_block *block, gfp_t gfp)
{
	union sp_id *entry;
	bool room;

	mutex_lock(&sp_ids_mutex);
	room = sp_free_id || sp_add_leaf(gfp);
	if (room) {
		block->id = sp_free_id;
		entry = sp_id_entry(block->id);
		sp_free_id = entry->next_free;
		entry->block = block;
	}
	mutex_unlock(&sp_ids_mutex);
	return room;
}

void sp_block_id_put(struct sp_block *block)
{
	mutex_lock(&sp_ids_mutex);
	sp_id_entry(block->id)->next_free = sp_free_id;
	sp_free_id = block->id;
	mutex_unlock(&sp_ids_mutex);
}

/* The block in which a page of this number lies, NULL where there is none. Needs sp_scan_lock for writing. */
struct sp_block *sp_known_block(u32 page)
{
	u32 id = page / SP_BLOCK_PAGES;
	union sp_id *entry;

	if (!id || id >> SP_LEAF_SHIFT >= sp_nr_leaves)
		return NULL;
	entry = sp_id_entry(id);
	if (entry->next_free <= SP_MAX_IDS)
		return NULL;
	return entry->block->id == id ? entry->block : NULL;
}

void sp_block_ids_destroy(void)
{
	union sp_id **leaves = rcu_dereference_raw(sp_leaves);

	while (sp_nr_leaves)
		free_page((unsigned long)leaves[--sp_nr_leaves]);
	kvfree(leaves);
}
