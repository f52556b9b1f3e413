// SPDX-License-Identifier: GPL-2.0-only
/*
 * Frames for merged pages, chosen at random: whoever has a page merged must not know
 * in which frame its content comes to lie. New frames come in large blocks, as long as
 * there are such: single ones would be those that somebody has just given up, those of
 * the pages that are merged above all.
 *
 * sp_frames_lock, a spinlock under all others, covers the frames of all nodes.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "timing.h"

#define SP_FRAMES	1024	/* of each node, to choose from: 4 MiB at least */
#define SP_BLOCK_ORDER	9
#define SP_FRAME_GFP	(GFP_HIGHUSER_MOVABLE | __GFP_THISNODE | __GFP_NORETRY | __GFP_NOWARN)

struct sp_pool {
	unsigned int count;
	struct page *frames[SP_FRAMES + BIT(SP_BLOCK_ORDER)];
};

static DEFINE_SPINLOCK(sp_frames_lock);
static struct sp_pool *sp_pools[MAX_NUMNODES];

/* The node's pool; NULL without memory. */
static struct sp_pool *sp_pool_of(int nid)
{
	struct sp_pool *new, *pool = READ_ONCE(sp_pools[nid]);

	if (pool)
		return pool;
	new = kzalloc(sizeof(*new), GFP_KERNEL | __GFP_NOWARN);
	if (!new)
		return NULL;
	spin_lock(&sp_frames_lock);
	if (!sp_pools[nid])
		sp_pools[nid] = new;
	pool = sp_pools[nid];
	spin_unlock(&sp_frames_lock);
	if (pool != new)
		kfree(new);
	return pool;
}

/* Add so many frames; those that find no room go back. False without memory. */
static bool sp_pool_add(struct sp_pool *pool, int nid, unsigned int order)
{
	struct page *page = alloc_pages_node(nid, SP_FRAME_GFP, order);
	unsigned int i, added = 0;

	if (!page)
		return false;
	split_page(page, order);
	spin_lock(&sp_frames_lock);
	while (added < BIT(order) && pool->count < ARRAY_SIZE(pool->frames))
		pool->frames[pool->count++] = page + added++;
	spin_unlock(&sp_frames_lock);
	for (i = added; i < BIT(order); i++)
		__free_page(page + i);
	return true;
}

/* One of more than SP_FRAMES, or NULL where there are not so many. */
static struct page *sp_pool_take(struct sp_pool *pool)
{
	struct page *chosen = NULL;
	unsigned int at;

	spin_lock(&sp_frames_lock);
	if (pool->count > SP_FRAMES) {
		at = get_random_u32() % pool->count;
		chosen = pool->frames[at];
		pool->frames[at] = pool->frames[--pool->count];
	}
	spin_unlock(&sp_frames_lock);
	return chosen;
}

/* A free frame of the node, chosen at random, with a reference; NULL without memory. */
struct page *sp_frame_get(int nid)
{
	struct sp_pool *pool = sp_pool_of(nid);
	struct page *chosen = NULL;

	while (pool && !chosen) {
		chosen = sp_pool_take(pool);
		if (!chosen && !sp_pool_add(pool, nid, SP_BLOCK_ORDER) && !sp_pool_add(pool, nid, 0))
			return NULL;
	}
	return chosen;
}

/* Give all frames back: nothing is merged, or memory goes offline. The next one that is taken fills the pool anew. */
void sp_frames_drop(void)
{
	struct page *page;
	int nid;

	for (nid = 0; nid < MAX_NUMNODES; nid++) {
		struct sp_pool *pool = READ_ONCE(sp_pools[nid]);

		while (pool) {
			spin_lock(&sp_frames_lock);
			page = pool->count ? pool->frames[--pool->count] : NULL;
			spin_unlock(&sp_frames_lock);
			if (!page)
				break;
			__free_page(page);
		}
	}
}

/* How many there are now. */
unsigned long sp_frames_held(void)
{
	unsigned long held = 0;
	int nid;

	spin_lock(&sp_frames_lock);
	for (nid = 0; nid < MAX_NUMNODES; nid++)
		held += sp_pools[nid] ? sp_pools[nid]->count : 0;
	spin_unlock(&sp_frames_lock);
	return held;
}

void sp_frames_destroy(void)
{
	int nid;

	sp_frames_drop();
	for (nid = 0; nid < MAX_NUMNODES; nid++)
		kfree(sp_pools[nid]);
}
