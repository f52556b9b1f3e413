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

/* False where the list of sharers is broken: it cannot be followed. */
static bool sp_check_sharers(struct sp_check *check, const struct sp_stable *stable)
{
	unsigned int count = 0;
	u32 page = stable->sharers, prev = 0;

	while (page && count <= stable->nr_sharers) {
		struct sp_block *block = sp_known_block(page);
		unsigned int index = sp_page_index(page);
		const struct sp_item *item;

		if (!block || !(block->sharers & sp_bit(index))) {
			sp_check_fault(check, "page %u of pfn %#lx is no sharer", page, stable->pfn);
			return false;
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
	return !page;
}

/* The mappings that a walk found; a process and its fork may lead to the same one. */
struct sp_mappings {
	unsigned int count;
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

static bool sp_is_found(const struct sp_mappings *mappings, struct mm_struct *mm,
			unsigned long addr)
{
	unsigned int i;

	for (i = 0; i < mappings->count; i++)
		if (mappings->found[i].mm == mm && mappings->found[i].addr == addr)
			return true;
	return false;
}

static bool sp_note_mapping(struct folio *folio, struct vm_area_struct *vma,
			    unsigned long addr, void *arg)
{
	struct sp_mappings *mappings = arg;

	if (!sp_maps(folio, vma, addr) || sp_is_found(mappings, vma->vm_mm, addr))
		return true;
	if (mappings->count == SP_MAPPINGS_COMPARED)
		return false;
	mappings->found[mappings->count++] = (struct sp_mapping) { vma->vm_mm, addr };
	return true;
}

/*
 * Walk the reverse map until it finds as many mappings as the folio counts, as far
 * as that can be had. Returns how many the folio counts, without the module's own;
 * @most: or counted before the last walk. Whoever writes to one page after the other is
 * faster than any walk.
 */
static int sp_find_mappings(struct sp_mappings *mappings, struct sp_stable *stable,
			    struct folio *folio, int *most)
{
	struct rmap_walk_control walk = { .rmap_one = sp_note_mapping, .arg = mappings };
	int mapped, walks = SP_WALKS;

	do {
		*most = folio_mapcount(folio) - stable->kept;
		mappings->count = 0;
		sp_walk_sharers(folio, stable, &walk);	/* no hook: it keeps what was let go of */
		mapped = folio_mapcount(folio) - stable->kept;
		cond_resched();
	} while (mappings->count != mapped && --walks);
	*most = max(*most, mapped);
	return mapped;
}

/*
 * Did the walk miss a mapping of the sharer's own? mremap() unmerges what it moves, but
 * not what is swapped out: that may come back where another mapping of the page was. In
 * a mapping that lies where it was made (or lies there again), it is a fault. Who has the
 * folio locked must not wait for mmap_lock.
 */
static void sp_check_missed(struct sp_check *check, const struct sp_item *item,
			    struct folio *folio)
{
	struct mm_struct *mm = sp_item_mm(item);
	unsigned long addr = sp_item_address(item);
	struct vm_area_struct *vma;

	if (sp_is_found(check->found, mm, addr) || !mmap_read_trylock(mm))
		return;
	vma = sp_mergeable_vma(mm, addr);
	if (vma && sp_maps(folio, vma, addr)) {
		check->missed++;
		if (linear_page_index(vma, addr) == addr >> PAGE_SHIFT)
			sp_check_fault(check, "pfn %#lx: the reverse map misses page %u",
				       folio_pfn(folio), item->page);
	}
	mmap_read_unlock(mm);
}

/* Does the reverse map find the mappings that the folio counts? The folio is locked. */
static void sp_check_mappings(struct sp_check *check, struct sp_stable *stable,
			      struct folio *folio)
{
	struct sp_mappings *found = check->found;
	int mapped = folio_mapcount(folio), most;
	const struct sp_item *item;

	if (found && mapped <= SP_MAPPINGS_COMPARED)
		mapped = sp_find_mappings(found, stable, folio, &most);
	if (!found || mapped > SP_MAPPINGS_COMPARED) {
		check->unwalked++;
		return;
	}
	sp_check_that(check, (int)found->count <= most, "pfn %#lx: %u, %d",
		      folio_pfn(folio), found->count, most);
	check->mappings += found->count;
	if ((int)found->count >= mapped)
		return;
	check->unreached += mapped - found->count;
	sp_for_each_sharer(item, stable)
		sp_check_missed(check, item, folio);
}

/*
 * The folio of @stable has gone. So its frame may be mapped anew, even by the same
 * process, as some other page. But no entry maps what says that it is the node's (what
 * migrates or is freed is unmapped before the node lets go of it), nor what says nothing.
 */
static void sp_check_gone_at(struct sp_check *check, const struct sp_stable *stable,
			     struct vm_area_struct *vma, unsigned long addr)
{
	spinlock_t *ptl; /* of the page table, which keeps the page mapped */
	pte_t *ptep = sp_pte_lock(vma->vm_mm, addr, &ptl);
	struct page *page = NULL;
	const void *says;

	if (!ptep)
		return;
	if (pte_present(ptep_get(ptep)))
		page = vm_normal_page(vma, addr, ptep_get(ptep));
	if (page) {
		says = READ_ONCE(page_folio(page)->mapping);
		sp_check_that(check, says != sp_folio_ksm_mapping(stable),
			      "pfn %#lx of a node of %#lx", page_to_pfn(page), stable->pfn);
		sp_check_that(check, says && says != sp_folio_ksm_mapping(NULL),
			      "pfn %#lx for a node of %#lx", page_to_pfn(page), stable->pfn);
	}
	pte_unmap_unlock(ptep, ptl);
}

/* A sharer whose node is stale, or out of the tree. */
void sp_check_gone(struct sp_check *check, const struct sp_item *item)
{
	struct mm_struct *mm = sp_item_mm(item);
	unsigned long addr = sp_item_address(item);
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = sp_mergeable_vma(mm, addr);
	if (vma)
		sp_check_gone_at(check, item->stable, vma, addr);
	mmap_read_unlock(mm);
}

/* The content of the merged page of a node. Its folio is locked. */
static void sp_check_content(struct sp_check *check, const struct sp_stable *stable,
			     struct page *page)
{
	u64 signature = stable->key.full ? sp_full_signature(page) : sp_sample(page);

	sp_check_that(check, signature == stable->key.signature, "pfn %#lx", stable->pfn);
	if (stable->key.domain == SP_EVERYBODY && stable->nr_sharers)
		sp_check_that(check, sp_is_common(page, sp_sample(page)), "pfn %#lx",
			      stable->pfn);
	check->compared++;
}

/* The merged page of a node whose list of sharers can be followed, or those who had it. */
static void sp_check_folio(struct sp_check *check, struct sp_stable *stable)
{
	struct folio *folio = sp_stable_folio_try(stable);
	const struct sp_item *item;

	if (!folio) {
		check->stale++;		/* it leaves the tree at its next use */
		sp_for_each_sharer(item, stable)
			sp_check_gone(check, item);
		return;
	}
	sp_check_that(check, !folio_test_large(folio), "pfn %#lx", stable->pfn);
	if (!folio_test_large(folio)) {
		if (!folio_test_hwpoison(folio))
			sp_check_content(check, stable, folio_page(folio, 0));
		sp_check_mappings(check, stable, folio);
	}
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
		if (sp_check_sharers(check, stable))
			sp_check_folio(check, stable);
		check->nodes++;
		before = stable;
		cond_resched();
	}
}

static unsigned long sp_kept_now(void)
{
	struct sp_stripe *stripe;
	struct sp_stable *stable;
	unsigned long kept = 0;

	sp_for_each_stripe(stripe) {
		sp_for_each_stable(stable, stripe) {
			kept += READ_ONCE(stable->kept);
			cond_resched();
		}
	}
	return kept;
}

/* Reclaim and migration let go of pages meanwhile, and keep them again: count until it fits. */
void sp_check_kept(struct sp_check *check)
{
	unsigned long counted, counter;
	int counts = SP_WALKS;

	do {
		counted = sp_kept_now();
		counter = sp_counted(kept);
	} while (counted != counter && --counts);
	if (!counts)
		sp_check_fault(check, "kept is %lu, counted: %lu", counter, counted);
}

void sp_check_stable(struct sp_check *check)
{
	struct sp_stripe *stripe;

	check->found = kvmalloc(struct_size(check->found, found, SP_MAPPINGS_COMPARED),
				GFP_KERNEL | __GFP_NOWARN);
	sp_for_each_stripe(stripe)
		sp_check_stripe(check, stripe);
	kvfree(check->found);
}
