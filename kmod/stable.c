// SPDX-License-Identifier: GPL-2.0-only
/*
 * The stable tree: merged pages.
 *
 * A node holds no reference to its folio, so that the last unmapping frees the
 * page at once. The folio points back to the node through its mapping field
 * instead, until it is freed: a node whose folio no longer points back is
 * stale. Migration moves the node to the new folio first (pfn), then clears
 * the old folio's pointer, with a write barrier between; the reader looks in
 * the opposite order.
 *
 * Nodes, tree and counts: sp_scan_mutex. The list of sharers and the pfn change
 * under the folio lock as well, which is all that reverse-map walkers hold.
 * Node memory may go once no folio points to it: only under sp_scan_mutex with
 * the folio lock held and its mapping reset, or when the folio is gone.
 *
 * Several nodes may have the same key: copies of one content, as no folio gets
 * more than max_page_sharing sharers. They are neighbours, newest first: a
 * *chain* of *dups* in the words of the in-tree counters.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/slab.h>

#include "samepage.h"

static struct kmem_cache *sp_stable_cache;

static struct rb_root sp_stable_tree = RB_ROOT;
static LIST_HEAD(sp_orphans);

#define node_stable(n) rb_entry_safe(n, struct sp_stable, node)

static struct sp_stable *sp_same_key(struct rb_node *node, const struct sp_key *key)
{
	struct sp_stable *stable = node_stable(node);

	return stable && !sp_key_order(&stable->key, key) ? stable : NULL;
}

/* How many dups of the node's content stand beside it: 0, 1 or 2 (or more). */
static unsigned int sp_dups_beside(struct sp_stable *stable)
{
	struct sp_stable *before = sp_same_key(rb_prev(&stable->node), &stable->key);
	struct sp_stable *after = sp_same_key(rb_next(&stable->node), &stable->key);

	if (before && after)
		return 2;
	if (before)
		return sp_same_key(rb_prev(&before->node), &stable->key) ? 2 : 1;
	if (after)
		return sp_same_key(rb_next(&after->node), &stable->key) ? 2 : 1;
	return 0;
}

struct sp_stable *sp_stable_alloc(const struct sp_key *key)
{
	struct sp_stable *stable;

	stable = kmem_cache_zalloc(sp_stable_cache, GFP_KERNEL | __GFP_NORETRY |
						    __GFP_NOWARN);
	if (!stable)
		return NULL;
	stable->key = *key;
	INIT_LIST_HEAD(&stable->orphan);
	RB_CLEAR_NODE(&stable->node);
	sp_stats.stables++;
	return stable;
}

void sp_stable_free_unused(struct sp_stable *stable)
{
	kmem_cache_free(sp_stable_cache, stable);
	sp_stats.stables--;
}

void sp_stable_insert(struct sp_stable *stable)
{
	struct rb_node **link = &sp_stable_tree.rb_node, *parent = NULL;
	unsigned int beside;

	while (*link) {
		parent = *link;
		/* Before its equals: the newest has room. */
		link = sp_key_order(&stable->key, &node_stable(parent)->key) <= 0 ?
			&parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&stable->node, parent, link);
	rb_insert_color(&stable->node, &sp_stable_tree);

	beside = sp_dups_beside(stable);
	if (beside == 1)
		sp_stats.chains++;
	if (beside)
		sp_stats.chain_dups += beside == 1 ? 2 : 1;
}

/* The newest comes first. */
static void sp_link_sharer(struct sp_stable *stable, struct sp_item *item)
{
	struct sp_item *next = sp_sharer(stable->sharers);

	item->prev = 0;
	item->next = stable->sharers;
	if (next)
		next->prev = item->page;
	stable->sharers = item->page;
}

static void sp_unlink_sharer(struct sp_stable *stable, struct sp_item *item)
{
	struct sp_item *prev = sp_sharer(item->prev), *next = sp_sharer(item->next);

	if (next)
		next->prev = item->prev;
	if (prev)
		prev->next = item->next;
	else
		stable->sharers = item->next;
}

/* Free a node that no folio points to; its sharers become plain pages. */
static void sp_stable_remove(struct sp_stable *stable)
{
	unsigned int beside;
	struct sp_item *item;

	while ((item = sp_sharer(stable->sharers))) {
		sp_unlink_sharer(stable, item);
		sp_item_mm(item)->ksm_merging_pages--;
		put_anon_vma(item->anon_vma);
		if (--stable->nr_sharers) {
			sp_stats.pages_sharing--;
			sp_trace_remove_rmap_item(stable->pfn, item, sp_item_mm(item));
		} else {
			sp_stats.pages_shared--;
		}
		sp_slot_detach(item);
		cond_resched();
	}
	sp_trace_remove_ksm_page(stable->pfn);
	list_del(&stable->orphan);
	if (!RB_EMPTY_NODE(&stable->node)) {
		beside = sp_dups_beside(stable);
		if (beside == 1)
			sp_stats.chains--;
		if (beside)
			sp_stats.chain_dups -= beside == 1 ? 2 : 1;
		rb_erase(&stable->node, &sp_stable_tree);
	}
	sp_stable_free_unused(stable);
}

/* The node's folio with a reference, or NULL when the node is stale. */
static struct folio *sp_stable_folio_get(struct sp_stable *stable)
{
	void *mapping = sp_folio_ksm_mapping(stable);
	struct folio *folio;
	unsigned long pfn;

	for (;;) {
		pfn = READ_ONCE(stable->pfn);
		folio = pfn_folio(pfn);
		while (READ_ONCE(folio->mapping) == mapping) {
			if (folio_try_get(folio)) {
				if (READ_ONCE(folio->mapping) == mapping)
					return folio;
				folio_put(folio);
				break;
			}
			/*
			 * Frozen references: being freed, unless the folio is
			 * in the swap cache and being migrated.
			 */
			if (!folio_test_swapcache(folio))
				break;
			cpu_relax();
		}
		smp_rmb();	/* pairs with sp_hook_migrate() */
		if (READ_ONCE(stable->pfn) == pfn)
			return NULL;
	}
}

/* The node's folio, locked and with a reference, or NULL when the node is stale. */
struct folio *sp_stable_folio_try(struct sp_stable *stable)
{
	struct folio *folio;

	while ((folio = sp_stable_folio_get(stable))) {
		folio_lock(folio);
		if (READ_ONCE(folio->mapping) == sp_folio_ksm_mapping(stable))
			break;
		/* Migrated or freed before we had the lock. */
		folio_unlock(folio);
		folio_put(folio);
	}
	return folio;
}

/* The same, but a stale node is freed. */
struct folio *sp_stable_folio_lock(struct sp_stable *stable)
{
	struct folio *folio = sp_stable_folio_try(stable);

	if (!folio)
		sp_stable_remove(stable);
	return folio;
}

/* The node behind @stable in the tree; the first one for NULL. */
struct sp_stable *sp_stable_after(struct sp_stable *stable)
{
	return node_stable(stable ? rb_next(&stable->node) : rb_first(&sp_stable_tree));
}

/* May one more page share the node: room left, folio on the node of its key? */
static bool sp_stable_open(const struct sp_stable *stable)
{
	return stable->nr_sharers &&
	       stable->nr_sharers < READ_ONCE(sp_tunables.max_page_sharing) &&
	       sp_page_nid(READ_ONCE(stable->pfn)) == stable->key.nid;
}

/* The first of @stable and its later dups that is open, NULL if none is. */
static struct sp_stable *sp_stable_open_from(struct sp_stable *stable,
					     const struct sp_key *key)
{
	while (stable && !sp_stable_open(stable))
		stable = sp_same_key(rb_next(&stable->node), key);
	return stable;
}

/* The open node of this key after @stable, NULL if there is none. */
struct sp_stable *sp_stable_next(struct sp_stable *stable, const struct sp_key *key)
{
	return sp_stable_open_from(sp_same_key(rb_next(&stable->node), key), key);
}

/* The first open node of this key, NULL if there is none. */
struct sp_stable *sp_stable_find(const struct sp_key *key)
{
	struct rb_node *node = sp_stable_tree.rb_node;
	struct sp_stable *first = NULL;

	while (node) {
		int order = sp_key_order(key, &node_stable(node)->key);

		if (!order)
			first = node_stable(node);
		node = order <= 0 ? node->rb_left : node->rb_right;
	}
	return first ? sp_stable_open_from(first, key) : NULL;
}

/*
 * Make @item a sharer, at index @pgoff of @anon_vma. Needs the folio lock, and
 * mmap_lock or the page-table lock, under which @anon_vma cannot go away.
 */
void sp_stable_attach(struct sp_stable *stable, struct sp_item *item,
		      struct anon_vma *anon_vma, pgoff_t pgoff)
{
	long delta = pgoff - (sp_item_address(item) >> PAGE_SHIFT);

	sp_slot_attach(item);
	item->pgoff_delta = delta == (s32)delta ? delta : SP_PGOFF_ANY;
	item->stable = stable;
	item->anon_vma = anon_vma;
	get_anon_vma(anon_vma);
	sp_link_sharer(stable, item);
	list_del_init(&stable->orphan);
	if (stable->nr_sharers++)
		sp_stats.pages_sharing++;
	else
		sp_stats.pages_shared++;
	sp_item_mm(item)->ksm_merging_pages++;
}

/* Take a sharer off its node; the item is gone then. */
void sp_stable_detach(struct sp_item *item)
{
	struct sp_stable *stable = item->stable;
	struct anon_vma *anon_vma = item->anon_vma;
	struct folio *folio = sp_stable_folio_lock(stable);

	if (!folio)
		return;		/* stale: the node let go of all */
	sp_unlink_sharer(stable, item);
	if (--stable->nr_sharers) {
		sp_stats.pages_sharing--;
	} else {
		sp_stats.pages_shared--;
		list_add(&stable->orphan, &sp_orphans);
	}
	sp_item_mm(item)->ksm_merging_pages--;
	sp_slot_detach(item);
	folio_unlock(folio);
	folio_put(folio);
	put_anon_vma(anon_vma);
}

/* Free the nodes without sharers whose folio has gone meanwhile. */
void sp_stable_prune(void)
{
	struct sp_stable *stable, *next;

	list_for_each_entry_safe(stable, next, &sp_orphans, orphan) {
		struct folio *folio = sp_stable_folio_lock(stable);

		if (folio) {
			folio_unlock(folio);
			folio_put(folio);
		}
		cond_resched();
	}
}

/* Part with a folio that nobody maps; false while it is mapped. */
static bool sp_stable_release(struct sp_stable *stable)
{
	struct folio *folio = sp_stable_folio_lock(stable);
	bool mapped;

	if (!folio)
		return true;
	mapped = folio_mapped(folio);
	if (!mapped) {
		/* It may be in the swap cache: swapping it in makes a copy. */
		WRITE_ONCE(folio->mapping, sp_folio_ksm_mapping(NULL));
		sp_stable_remove(stable);
	}
	folio_unlock(folio);
	folio_put(folio);
	return !mapped;
}

/* Empty the tree after everything was unmerged; false if some pages resist. */
bool sp_stable_release_all(void)
{
	struct rb_node *node = rb_first(&sp_stable_tree);
	bool all = true;

	while (node) {
		struct sp_stable *stable = node_stable(node);

		node = rb_next(node);
		all &= sp_stable_release(stable);
		cond_resched();
	}
	return all;
}

/* Memory went offline: its page structs may, too. */
void sp_stable_forget_pfns(unsigned long start, unsigned long end)
{
	struct rb_node *node = rb_first(&sp_stable_tree);

	while (node) {
		struct sp_stable *stable = node_stable(node);

		node = rb_next(node);
		if (stable->pfn >= start && stable->pfn < end)
			sp_stable_remove(stable);
		cond_resched();
	}
}

int sp_stable_init(void)
{
	sp_stable_cache = KMEM_CACHE(sp_stable, 0);
	return sp_stable_cache ? 0 : -ENOMEM;
}

void sp_stable_destroy(void)
{
	kmem_cache_destroy(sp_stable_cache);
}
