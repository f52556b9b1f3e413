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
 * Tree and counts are under the stripe's lock. So is the list of sharers, which
 * changes under the folio lock as well: that is all that reverse-map walkers hold.
 * The pfn changes under the folio lock. Only who holds `merging` of the stripe adds
 * nodes or sharers.
 *
 * A stale node leaves the tree as soon as it is found to be one, and its pfn is 0
 * then. Its memory goes when its last sharer, whose scanner finds that the page is
 * another one, has left, and nobody who found it in the tree holds it.
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

struct sp_stripe sp_stripes[SP_STRIPES];

static struct sp_stripe *sp_stable_stripe(const struct sp_key *key)
{
	return sp_stripe_of(sp_brief(key));
}

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
	sp_domain_hold(key->domain);
	INIT_LIST_HEAD(&stable->orphan);
	RB_CLEAR_NODE(&stable->node);
	sp_count(stables);
	return stable;
}

void sp_stable_free_unused(struct sp_stable *stable)
{
	sp_domain_release(stable->key.domain);
	kmem_cache_free(sp_stable_cache, stable);
	sp_uncount(stables);
}

void sp_stable_insert(struct sp_stable *stable)
{
	struct sp_stripe *stripe = sp_stable_stripe(&stable->key);
	struct rb_node **link = &stripe->tree.rb_node, *parent = NULL;
	bool equals = false;	/* those next to it are among those that one comes by */
	unsigned int beside;
	int order;

	sp_stripe_lock(stripe);
	while (*link) {
		parent = *link;
		/* Before its equals: the newest has room. */
		order = sp_key_order(&stable->key, &node_stable(parent)->key);
		equals |= !order;
		link = order <= 0 ? &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&stable->node, parent, link);
	rb_insert_color(&stable->node, &stripe->tree);

	beside = equals ? sp_dups_beside(stable) : 0;
	if (beside == 1)
		stripe->chains++;
	if (beside)
		stripe->chain_dups += beside == 1 ? 2 : 1;
	sp_stripe_unlock(stripe);
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

static void sp_erase(struct sp_stripe *stripe, struct sp_stable *stable)
{
	unsigned int beside = sp_dups_beside(stable);

	if (beside == 1)
		stripe->chains--;
	if (beside)
		stripe->chain_dups -= beside == 1 ? 2 : 1;
	rb_erase(&stable->node, &stripe->tree);
	RB_CLEAR_NODE(&stable->node);
}

/* No folio points to the node any more: it leaves the tree, and the counts. */
static void sp_bury(struct sp_stripe *stripe, struct sp_stable *stable)
{
	struct sp_item *item = sp_sharer(stable->sharers);

	for (; sp_trace_on(remove_rmap_item) && item && item->next; item = sp_sharer(item->next))
		sp_trace_remove_rmap_item(stable->pfn, item, sp_item_mm(item));
	sp_trace_remove_ksm_page(stable->pfn);
	WRITE_ONCE(stable->pfn, 0);
	if (stable->nr_sharers) {
		stripe->shared--;
		stripe->sharing -= stable->nr_sharers - 1;
	}
	list_del_init(&stable->orphan);
	if (!RB_EMPTY_NODE(&stable->node))
		sp_erase(stripe, stable);
}

/* Nobody will come by the node any more? Needs the stripe's lock. */
static bool sp_forsaken(const struct sp_stable *stable)
{
	return !stable->pfn && !stable->holds && !stable->nr_sharers;
}

/* The node is stale, unless somebody else saw that before. */
static void sp_stable_remove(struct sp_stable *stable)
{
	struct sp_stripe *stripe = sp_stable_stripe(&stable->key);
	bool forsaken = false;

	sp_stripe_lock(stripe);
	if (stable->pfn) {
		sp_bury(stripe, stable);
		forsaken = sp_forsaken(stable);
	}
	sp_stripe_unlock(stripe);
	if (forsaken)
		sp_stable_free_unused(stable);
}

/* Let go of a node that was found in the tree. */
void sp_stable_put(struct sp_stable *stable)
{
	struct sp_stripe *stripe = sp_stable_stripe(&stable->key);
	bool forsaken;

	sp_stripe_lock(stripe);
	stable->holds--;
	forsaken = sp_forsaken(stable);
	sp_stripe_unlock(stripe);
	if (forsaken)
		sp_stable_free_unused(stable);
}

/* The node's folio with a reference, or NULL when the node is stale. */
struct folio *sp_stable_folio_get(struct sp_stable *stable)
{
	void *mapping = sp_folio_ksm_mapping(stable);
	struct folio *folio;
	unsigned long pfn;

	for (;;) {
		pfn = READ_ONCE(stable->pfn);
		if (!pfn)
			return NULL;
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

/* The same, but a stale node leaves the tree; it goes altogether where nobody holds or shares it. */
struct folio *sp_stable_folio_lock(struct sp_stable *stable)
{
	struct folio *folio = sp_stable_folio_try(stable);

	if (!folio)
		sp_stable_remove(stable);
	return folio;
}

/* The node behind @stable in a stripe's tree; the first one for NULL. */
struct sp_stable *sp_stable_after(struct sp_stripe *stripe, struct sp_stable *stable)
{
	return node_stable(stable ? rb_next(&stable->node) : rb_first(&stripe->tree));
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

/* The first node of this key, NULL if there is none. */
static struct sp_stable *sp_first_of(const struct sp_stripe *stripe, const struct sp_key *key)
{
	struct rb_node *node = stripe->tree.rb_node;
	struct sp_stable *first = NULL;

	while (node) {
		int order = sp_key_order(key, &node_stable(node)->key);

		if (!order)
			first = node_stable(node);
		node = order <= 0 ? node->rb_left : node->rb_right;
	}
	return first;
}

/* The first node of this key, NULL if there is none. Needs sp_scan_lock for writing. */
struct sp_stable *sp_stable_first(const struct sp_key *key)
{
	return sp_first_of(sp_stable_stripe(key), key);
}

/* The first open node of this key, held; NULL if there is none. @stripe: the key's. */
struct sp_stable *sp_stable_find(struct sp_stripe *stripe, const struct sp_key *key)
{
	struct sp_stable *stable;

	sp_stripe_lock(stripe);
	stable = sp_first_of(stripe, key);
	if (stable)
		stable = sp_stable_open_from(stable, key);
	if (stable)
		stable->holds++;
	sp_stripe_unlock(stripe);
	return stable;
}

/* In place of @stable, which was held, the next open node of its key, held; or NULL. */
struct sp_stable *sp_stable_next(struct sp_stable *stable)
{
	struct sp_stripe *stripe = sp_stable_stripe(&stable->key);
	struct sp_stable *next = NULL;

	sp_stripe_lock(stripe);
	if (RB_EMPTY_NODE(&stable->node))
		next = sp_first_of(stripe, &stable->key);	/* it was buried meanwhile */
	else
		next = sp_same_key(rb_next(&stable->node), &stable->key);
	next = sp_stable_open_from(next, &stable->key);
	if (next)
		next->holds++;
	sp_stripe_unlock(stripe);
	sp_stable_put(stable);
	return next;
}

/*
 * Make @item a sharer, at index @pgoff of @anon_vma. Needs the folio lock, and
 * mmap_lock or the page-table lock, under which @anon_vma cannot go away.
 */
void sp_stable_attach(struct sp_stable *stable, struct sp_item *item,
		      struct anon_vma *anon_vma, pgoff_t pgoff)
{
	struct sp_block *block = sp_sharer_block(item->page);
	unsigned int index = sp_page_index(item->page);
	long delta = pgoff - (sp_slot_address(block, index) >> PAGE_SHIFT);
	struct sp_stripe *stripe = sp_stable_stripe(&stable->key);

	sp_slot_attach(block, index, item);
	item->pgoff_delta = delta == (s32)delta ? delta : SP_PGOFF_ANY;
	item->stable = stable;
	item->anon_vma = anon_vma;
	get_anon_vma(anon_vma);
	block->owner->mm->ksm_merging_pages++;
	sp_stripe_lock(stripe);
	sp_link_sharer(stable, item);
	list_del_init(&stable->orphan);
	if (stable->nr_sharers++)
		stripe->sharing++;
	else
		stripe->shared++;
	sp_stripe_unlock(stripe);
}

/* Take a sharer off its node; the item is gone then. */
void sp_stable_detach(struct sp_item *item)
{
	struct sp_stable *stable = item->stable;
	struct sp_stripe *stripe = sp_stable_stripe(&stable->key);
	struct folio *folio = sp_stable_folio_lock(stable);
	bool forsaken;

	sp_stripe_lock(stripe);
	sp_unlink_sharer(stable, item);
	stable->nr_sharers--;
	if (folio && stable->nr_sharers)
		stripe->sharing--;
	else if (folio)
		stripe->shared--;
	if (folio && !stable->nr_sharers)
		list_add(&stable->orphan, &stripe->orphans);
	forsaken = sp_forsaken(stable);
	sp_stripe_unlock(stripe);
	if (folio) {
		sp_unkeep_unmapped(stable, folio);
		folio_unlock(folio);
		folio_put(folio);
	}
	put_anon_vma(item->anon_vma);
	sp_item_mm(item)->ksm_merging_pages--;
	sp_slot_detach(item);
	if (forsaken)
		sp_stable_free_unused(stable);
}

/* Free the nodes without sharers whose folio has gone meanwhile. Between passes. */
void sp_stable_prune(void)
{
	struct sp_stable *stable, *next;
	struct sp_stripe *stripe;

	sp_for_each_stripe(stripe) {
		list_for_each_entry_safe(stable, next, &stripe->orphans, orphan) {
			struct folio *folio = sp_stable_folio_lock(stable);

			if (folio) {
				sp_unkeep_unmapped(stable, folio);
				folio_unlock(folio);
				folio_put(folio);
			}
			cond_resched();
		}
	}
}

/* Part with a folio that nobody maps; false while it is mapped. */
static bool sp_stable_release(struct sp_stable *stable)
{
	struct folio *folio = sp_stable_folio_lock(stable);
	bool mapped;

	if (!folio)
		return true;
	sp_unkeep(stable, folio);
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
	struct sp_stable *stable, *next;
	struct sp_stripe *stripe;
	bool all = true;

	sp_for_each_stripe(stripe) {
		for (stable = sp_stable_after(stripe, NULL); stable; stable = next) {
			next = sp_stable_after(stripe, stable);
			all &= sp_stable_release(stable);
			cond_resched();
		}
	}
	return all;
}

/* Memory went offline: its page structs may, too. */
void sp_stable_forget_pfns(unsigned long start, unsigned long end)
{
	struct sp_stable *stable, *next;
	struct sp_stripe *stripe;

	sp_for_each_stripe(stripe) {
		for (stable = sp_stable_after(stripe, NULL); stable; stable = next) {
			next = sp_stable_after(stripe, stable);
			if (stable->pfn >= start && stable->pfn < end)
				sp_stable_remove(stable);
			cond_resched();
		}
	}
}

int sp_stable_init(void)
{
	struct sp_stripe *stripe;

	sp_for_each_stripe(stripe) {
		stripe->tree = RB_ROOT;
		INIT_LIST_HEAD(&stripe->orphans);
	}
	sp_stable_cache = KMEM_CACHE(sp_stable, 0);
	return sp_stable_cache ? 0 : -ENOMEM;
}

void sp_stable_destroy(void)
{
	kmem_cache_destroy(sp_stable_cache);
}
