// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes one thing wrong that the module under test knows, so that tests can see
 * whether its checker finds it:  insmod spoil.ko what=NAME. Unloading puts it right.
 */
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/rbtree_augmented.h>

#include "samepage.h"

static char *what = "";
module_param(what, charp, 0444);

static struct rw_semaphore *scan_lock;
static struct sp_stripe *stripe;	/* one whose tree has a few nodes, two sharers at its root */
static union sp_id **leaves;
static struct sp_counts __percpu *counts;
static unsigned long *reserve_pages;
static void (*unkeep)(struct sp_stable *stable, struct folio *folio);
static void (*keep)(struct sp_stable *stable, struct folio *folio);
static void *kept;			/* what undoing needs */

static struct sp_stable *root(void)
{
	return rb_entry(stripe->tree.rb_node, struct sp_stable, node);
}

static struct sp_stable *left(void)
{
	return rb_entry(root()->node.rb_left, struct sp_stable, node);
}

static struct folio *root_folio(void)
{
	return pfn_folio(root()->pfn);
}

static struct sp_block *block_of(u32 page)
{
	u32 id = page / SP_BLOCK_PAGES;

	return leaves[id >> SP_LEAF_SHIFT][id & (SP_LEAF_IDS - 1)].block;
}

static union sp_slot *slot_of(u32 page)
{
	return &block_of(page)->slot[sp_page_index(page)];
}

/* The sharers of the root, and the block of the first. */
static struct sp_item *first(void)
{
	return slot_of(root()->sharers)->item;
}

static struct sp_item *second(void)
{
	return slot_of(first()->next)->item;
}

static struct sp_block *block(void)
{
	return block_of(root()->sharers);
}

static u64 bit(void)
{
	return BIT_ULL(sp_page_index(root()->sharers));
}

/* The number of a candidate, 0 if there is none; free numbers are chained through the table. */
static u32 candidate(void)
{
	u32 id;

	for (id = 1; id < SP_LEAF_IDS; id++) {
		const struct sp_block *its = leaves[0][id].block;

		if (leaves[0][id].next_free > U32_MAX && its->candidates)
			return id * SP_BLOCK_PAGES + __ffs64(its->candidates);
	}
	return 0;
}

/* Another number. */
static void instead(u32 *number, u32 other, bool undo)
{
	if (undo) {
		*number = (unsigned long)kept;
		return;
	}
	kept = (void *)(unsigned long)*number;
	*number = other;
}

/* Another pointer. */
static void point(void *pointer, void *other, bool undo)
{
	void **at = pointer;

	if (undo) {
		*at = kept;
		return;
	}
	kept = *at;
	*at = other;
}

/* The count of this name that is to be one too high, NULL if it is none. */
static unsigned long *count_to_spoil(void)
{
	struct sp_counts *count = per_cpu_ptr(counts, 0);
	struct sp_space *owner = block()->owner;
	const struct {
		const char *name;
		unsigned long *at;
	} all[] = {
		{ "blocks", &count->blocks },
		{ "tracked_pages", &count->pages_tracked },
		{ "items", &count->items },
		{ "stables", &count->stables },
		{ "keeps", &count->kept },
		{ "reserve", reserve_pages },
		{ "shared", &stripe->shared },
		{ "counter", &stripe->sharing },
		{ "chains", &stripe->chains },
		{ "dups", &stripe->chain_dups },
		{ "candidates", &stripe->candidates },
		{ "nr_blocks", &owner->nr_blocks },
		{ "nr_seen", &owner->nr_seen },
		{ "profit", &owner->mm->ksm_merging_pages },
		{ "rmap_items", &owner->mm->ksm_rmap_items },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(all[i].name, what))
			return all[i].at;
	return NULL;
}

/* Tenants and records. */

static void spoil_tenant(bool undo)
{
	block()->owner->tenant->nr_spaces += undo ? -1 : 1;
}

static void spoil_owner(bool undo)
{
	point(&block()->owner, block_of(first()->next)->owner, undo);
}

static void spoil_place(bool undo)
{
	block()->base ^= SP_BLOCK_SIZE;
}

static void spoil_id(bool undo)
{
	block()->id ^= 1;
}

static void spoil_lost(bool undo)
{
	unsigned long at = block()->base >> SP_BLOCK_SHIFT;

	if (undo)
		xa_store(&block()->owner->blocks, at, block(), GFP_KERNEL);
	else
		xa_erase(&block()->owner->blocks, at);
}

static void spoil_tracked(bool undo)
{
	block()->tracked ^= bit();
}

static void spoil_settled(bool undo)
{
	block()->settled ^= bit();
}

static void spoil_forked(bool undo)
{
	block()->forked ^= bit();
}

static void spoil_set(bool undo)
{
	block()->candidates ^= bit();
}

static void spoil_number(bool undo)
{
	first()->page ^= 1;
}

/* The unstable tree. */

static void spoil_bucket(bool undo)
{
	slot_of(candidate())->signature ^= SP_STRIPES;
}

static void spoil_next(bool undo)
{
	instead(&slot_of(candidate())->next, root()->sharers, undo);
}

static void spoil_twice(bool undo)
{
	instead(&slot_of(candidate())->next, candidate(), undo);
}

/* The stable tree. */

static void spoil_key(bool undo)
{
	root()->key.signature ^= 1;
}

static void spoil_order(bool undo)
{
	swap(root()->key, left()->key);
}

static void spoil_stripe(bool undo)
{
	root()->key.nid ^= 1;
}

static void spoil_everybody(bool undo)
{
	u16 domain = root()->key.domain;

	root()->key.domain = undo ? (unsigned long)kept : SP_EVERYBODY;
	kept = (void *)(unsigned long)domain;
}

static void spoil_red(bool undo)
{
	root()->node.__rb_parent_color ^= RB_BLACK;
}

static void spoil_colour(bool undo)
{
	left()->node.__rb_parent_color ^= RB_BLACK;
}

static void spoil_held(bool undo)
{
	root()->holds ^= 1;
}

static void spoil_orphan(bool undo)
{
	if (undo)
		list_del_init(&root()->orphan);
	else
		list_add(&root()->orphan, &stripe->orphans);
}

/* Sharers. */

static void spoil_sharers(bool undo)
{
	instead(&root()->sharers, undo ? 0 : first()->next, undo);
}

static void spoil_stranger(bool undo)
{
	instead(&root()->sharers, candidate(), undo);
}

static void spoil_cycle(bool undo)
{
	second()->next ^= second()->page;
}

static void spoil_prev(bool undo)
{
	first()->prev ^= 1;
}

static void spoil_node(bool undo)
{
	point(&first()->stable, left(), undo);
}

static void spoil_domain(bool undo)
{
	block()->owner->domain ^= 1;
}

static void spoil_timing(bool undo)
{
	block()->owner->timing_safe ^= 1;
}

/* Merged pages, and who maps them. */

static void spoil_pfn(bool undo)
{
	root()->pfn ^= 1;
}

static void spoil_buried(bool undo)
{
	point(&root()->pfn, NULL, undo);
}

static void spoil_mapping(bool undo)
{
	WRITE_ONCE(root_folio()->mapping, sp_folio_ksm_mapping(undo ? root() : NULL));
}

static void spoil_large(bool undo)
{
	if (undo)
		__ClearPageHead(folio_page(root_folio(), 0));
	else
		__SetPageHead(folio_page(root_folio(), 0));
}

static void spoil_fewer(bool undo)
{
	atomic_add(undo ? 1 : -1, &root_folio()->_mapcount);
}

/* No fault: as if a fork of a process that is gone mapped it. */
static void spoil_unreached(bool undo)
{
	atomic_add(undo ? -1 : 1, &root_folio()->_mapcount);
}

static void spoil_anon_vma(bool undo)
{
	point(&first()->anon_vma, second()->anon_vma, undo);
}

/* Out of the mapping. */
static void spoil_index(bool undo)
{
	first()->pgoff_delta ^= 1 << 20;
}

/* No fault: as if a walk on behalf of reclaim had been there, and failed. */
static void spoil_unkept(bool undo)
{
	struct folio *folio = root_folio();

	folio_lock(folio);
	(undo ? keep : unkeep)(root(), folio);
	folio_unlock(folio);
}

static const struct {
	const char *name;
	void (*spoil)(bool undo);
} all[] = {
	{ "tenant", spoil_tenant },
	{ "owner", spoil_owner },
	{ "place", spoil_place },
	{ "id", spoil_id },
	{ "lost", spoil_lost },
	{ "tracked", spoil_tracked },
	{ "settled", spoil_settled },
	{ "forked", spoil_forked },
	{ "set", spoil_set },
	{ "number", spoil_number },
	{ "bucket", spoil_bucket },
	{ "next", spoil_next },
	{ "twice", spoil_twice },
	{ "key", spoil_key },
	{ "order", spoil_order },
	{ "stripe", spoil_stripe },
	{ "everybody", spoil_everybody },
	{ "red", spoil_red },
	{ "colour", spoil_colour },
	{ "held", spoil_held },
	{ "orphan", spoil_orphan },
	{ "sharers", spoil_sharers },
	{ "stranger", spoil_stranger },
	{ "cycle", spoil_cycle },
	{ "prev", spoil_prev },
	{ "node", spoil_node },
	{ "domain", spoil_domain },
	{ "timing", spoil_timing },
	{ "pfn", spoil_pfn },
	{ "buried", spoil_buried },
	{ "mapping", spoil_mapping },
	{ "large", spoil_large },
	{ "fewer", spoil_fewer },
	{ "unreached", spoil_unreached },
	{ "anon_vma", spoil_anon_vma },
	{ "index", spoil_index },
	{ "unkept", spoil_unkept },
};

static int carry_out(bool undo)
{
	unsigned long *count = count_to_spoil();
	unsigned int i = 0;

	while (!count && i < ARRAY_SIZE(all) && strcmp(all[i].name, what))
		i++;
	if (i == ARRAY_SIZE(all))
		return -EINVAL;
	down_write(scan_lock);
	if (count)
		*count += undo ? -1 : 1;
	else
		all[i].spoil(undo);
	up_write(scan_lock);
	return 0;
}

static bool is_fit(void)
{
	return stripe->tree.rb_node && stripe->tree.rb_node->rb_left && root()->nr_sharers == 2;
}

/* False where something is missing. */
static bool look_up(unsigned long (*lookup)(const char *name))
{
	scan_lock = (void *)lookup("samepage:sp_scan_lock");
	stripe = (void *)lookup("samepage:sp_stripes");
	counts = (void __percpu *)lookup("samepage:sp_counts");
	keep = (void *)lookup("samepage:sp_keep");
	unkeep = (void *)lookup("samepage:sp_unkeep");
	if (!scan_lock || !stripe || !counts || !keep || !unkeep)
		return false;
	reserve_pages = (void *)lookup("samepage:sp_reserve_pages");
	if (!reserve_pages || !lookup("samepage:sp_leaves"))
		return false;
	leaves = *(union sp_id ***)lookup("samepage:sp_leaves");
	return true;
}

static int __init spoil_init(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	unsigned long (*lookup)(const char *name);
	int err = register_kprobe(&probe);
	unsigned int i;

	if (err)
		return err;
	lookup = (void *)probe.addr;
	unregister_kprobe(&probe);
	if (!look_up(lookup))
		return -ENOENT;
	for (i = 1; i < SP_STRIPES && !is_fit(); i++)
		stripe++;
	if (!is_fit() || (!candidate() && strcmp(what, "unkept")))
		return -EAGAIN;
	return carry_out(false);
}

static void __exit spoil_exit(void)
{
	carry_out(true);
}

module_init(spoil_init);
module_exit(spoil_exit);
MODULE_DESCRIPTION("spoils what the module under test knows");
MODULE_LICENSE("GPL");
