// SPDX-License-Identifier: GPL-2.0-only
/*
 * The part of the checker that looks at the stable tree: order and balance, lists
 * of sharers, and of every merged page that lives, its content and who maps it.
 *
 * Processes go on meanwhile: they unmap, copy and fork. So a reverse-map walk that
 * does not agree with the folio's count of mappings is repeated. No scanner may be
 * at work.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rbtree_augmented.h>
#include <linux/rmap.h>
#include <linux/slab.h>

#include "check.h"
#include "contents.h"

#define SP_WALKS 5

/* A walk of more mappings than that is left out: each is compared with each. */
#define SP_MAPPINGS_COMPARED 1024

/* How many black nodes lie on the way from @node to the root, itself among them. */
static unsigned int sp_black_above(const struct rb_node *node)
{
	unsigned int black = 0;

	for (; node; node = rb_parent(node))
		black += rb_is_black(node);
	return black;
}

/* @height: of the first node without a child; 0 as long as there was none. */
static void sp_check_balance(struct sp_check *check, const struct rb_node *node,
			     unsigned int *height)
{
	const struct rb_node *parent = rb_parent(node);

	sp_check_that(check, rb_is_black(node) || (parent && rb_is_black(parent)), "node %u",
		      (unsigned int)check->nodes);
	if (node->rb_left && node->rb_right)
		return;
	if (!*height)
		*height = sp_black_above(node);
	sp_check_that(check, sp_black_above(node) == *height, "%u", *height);
}

static void sp_check_sharers(struct sp_check *check, const struct sp_stable *stable)
{
	unsigned int count = 0;
	u32 page = stable->sharers, prev = 0;

	while (page && count <= stable->nr_sharers) {
		struct sp_block *block = sp_known_block(page);
		unsigned int index = sp_page_index(page);
		const struct sp_item *item;

		if (!block || !(block->sharers & sp_bit(index))) {
			sp_check_fault(check, "page %u of pfn %#lx is no sharer", page, stable->pfn);
			return;
		}
		item = block->slot[index].item;
		sp_check_that(check, item->stable == stable, "page %u", page);
		sp_check_that(check, stable->key.domain == block->owner->domain ||
			      stable->key.domain == SP_EVERYBODY, "page %u", page);
		sp_check_that(check, stable->timing_safe || !sp_timing_safe(block->owner),
			      "page %u", page);
		sp_check_that(check, item->prev == prev, "page %u", page);
		prev = page;
		page = item->next;
		count++;
	}
	sp_check_that(check, count == stable->nr_sharers, "%u, %u", count, stable->nr_sharers);
	sp_check_that(check, list_empty(&stable->orphan) == !!count, "%u", count);
	check->shared += count > 0;
	check->sharing += count ? count - 1 : 0;
}

/* The mappings that a walk found; a process and its fork may lead to the same one. */
struct sp_mappings {
	unsigned int count, room;
	struct sp_mapping {
		struct mm_struct *mm;
		unsigned long addr;
	} found[];
};

static bool sp_maps(struct folio *folio, struct vm_area_struct *vma, unsigned long addr)
{
	spinlock_t *ptl; /* of the page table */
	pte_t *ptep = sp_pte_lock(vma->vm_mm, addr, &ptl);
	bool maps;

	if (!ptep)
		return false;
	maps = pte_present(ptep_get(ptep)) && pte_pfn(ptep_get(ptep)) == folio_pfn(folio);
	pte_unmap_unlock(ptep, ptl);
	return maps;
}

static bool sp_note_mapping(struct folio *folio, struct vm_area_struct *vma,
			    unsigned long addr, void *arg)
{
	struct sp_mapping mapping = { vma->vm_mm, addr };
	struct sp_mappings *mappings = arg;
	unsigned int i;

	if (!sp_maps(folio, vma, addr))
		return true;
	for (i = 0; i < mappings->count; i++)
		if (!memcmp(&mappings->found[i], &mapping, sizeof(mapping)))
			return true;
	if (mappings->count == mappings->room)
		return false;
	mappings->found[mappings->count++] = mapping;
	return true;
}

/* Does the reverse map find the mappings that the folio counts? The folio is locked. */
static void sp_check_mappings(struct sp_check *check, const struct sp_stable *stable,
			      struct folio *folio)
{
	int mapped, walks = SP_WALKS;
	struct rmap_walk_control walk = { .rmap_one = sp_note_mapping };
	struct sp_mappings *mappings;

	if (folio_mapcount(folio) > SP_MAPPINGS_COMPARED)
		return;
	mappings = kvmalloc(struct_size(mappings, found, SP_MAPPINGS_COMPARED),
			    GFP_KERNEL | __GFP_NOWARN);
	if (!mappings)
		return;
	mappings->room = SP_MAPPINGS_COMPARED;
	walk.arg = mappings;
	do {
		mappings->count = 0;
		sp_hook_rmap_walk(folio, &walk);
		mapped = folio_mapcount(folio) - stable->kept;
		cond_resched();
	} while (mappings->count != mapped && --walks);
	sp_check_that(check, (int)mappings->count <= mapped, "pfn %#lx: %u, %d",
		      folio_pfn(folio), mappings->count, mapped);
	check->mappings += mappings->count;
	check->unreached += max(mapped - (int)mappings->count, 0);
	kvfree(mappings);
}

static void sp_check_folio(struct sp_check *check, struct sp_stable *stable)
{
	struct folio *folio = sp_stable_folio_try(stable);
	struct page *page;

	if (!folio)
		return;		/* stale: found at its next use */
	page = folio_page(folio, 0);
	sp_check_that(check, folio_pfn(folio) == stable->pfn, "%#lx, %#lx", folio_pfn(folio),
		      stable->pfn);
	sp_check_that(check, !folio_test_large(folio), "pfn %#lx", stable->pfn);
	if (!folio_test_hwpoison(folio)) {
		u64 signature = stable->key.full ? sp_full_signature(page) : sp_sample(page);

		sp_check_that(check, signature == stable->key.signature, "pfn %#lx", stable->pfn);
		if (stable->key.domain == SP_EVERYBODY && stable->nr_sharers)
			sp_check_that(check, sp_is_common(page, sp_sample(page)), "pfn %#lx",
				      stable->pfn);
		check->compared++;
	}
	sp_check_mappings(check, stable, folio);
	folio_unlock(folio);
	folio_put(folio);
}

/* Count chains of equal keys: @run is how many stood before @stable. */
static void sp_check_chain(struct sp_check *check, unsigned int run)
{
	if (run == 1)
		check->chains++;
	if (run)
		check->dups += run == 1 ? 2 : 1;
}

static void sp_check_stripe(struct sp_check *check, struct sp_stripe *stripe)
{
	struct sp_stable *stable, *before = NULL;
	unsigned int height = 0, run = 0;

	sp_for_each_stable(stable, stripe) {
		int order = before ? sp_key_order(&before->key, &stable->key) : -1;

		sp_check_that(check, order <= 0, "node %lu", check->nodes);
		sp_check_that(check, sp_stripe_of(sp_brief(&stable->key)) == stripe,
			      "node %lu", check->nodes);
		sp_check_that(check, stable->pfn && !stable->holds, "node %lu", check->nodes);
		run = order ? 0 : run + 1;
		sp_check_chain(check, run);
		sp_check_balance(check, &stable->node, &height);
		sp_check_sharers(check, stable);
		sp_check_folio(check, stable);
		check->nodes++;
		before = stable;
		cond_resched();
	}
}

void sp_check_stable(struct sp_check *check)
{
	struct sp_stripe *stripe;

	sp_for_each_stripe(stripe)
		sp_check_stripe(check, stripe);
}
