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
static struct sp_stripe *stripe;	/* one whose tree has a few nodes */
static union sp_id **leaves;
static u32 kept;

static struct sp_stable *root(void)
{
	return rb_entry(stripe->tree.rb_node, struct sp_stable, node);
}

static struct sp_block *block_of(u32 page)
{
	u32 id = page / SP_BLOCK_PAGES;

	return leaves[id >> SP_LEAF_SHIFT][id & (SP_LEAF_IDS - 1)].block;
}

static void spoil_counter(bool undo)
{
	stripe->sharing += undo ? -1 : 1;
}

static void spoil_profit(bool undo)
{
	block_of(root()->sharers)->owner->mm->ksm_merging_pages += undo ? -1 : 1;
}

static void spoil_key(bool undo)
{
	root()->key.signature ^= 1;
}

static void spoil_order(bool undo)
{
	swap(root()->key, rb_entry(root()->node.rb_left, struct sp_stable, node)->key);
}

static void spoil_colour(bool undo)
{
	root()->node.rb_left->__rb_parent_color ^= RB_BLACK;
}

static void spoil_sharers(bool undo)
{
	u32 page = root()->sharers;

	if (undo) {
		root()->sharers = kept;
		return;
	}
	kept = page;
	root()->sharers = block_of(page)->slot[sp_page_index(page)].item->next;
}

static void spoil_set(bool undo)
{
	block_of(root()->sharers)->candidates ^= BIT_ULL(sp_page_index(root()->sharers));
}

static void spoil_number(bool undo)
{
	u32 page = root()->sharers;

	block_of(page)->slot[sp_page_index(page)].item->page ^= 1;
}

static void spoil_tenant(bool undo)
{
	block_of(root()->sharers)->owner->tenant->nr_spaces += undo ? -1 : 1;
}

static const struct {
	const char *name;
	void (*spoil)(bool undo);
} all[] = {
	{ "counter", spoil_counter },
	{ "profit", spoil_profit },
	{ "key", spoil_key },
	{ "order", spoil_order },
	{ "colour", spoil_colour },
	{ "sharers", spoil_sharers },
	{ "set", spoil_set },
	{ "tenant", spoil_tenant },
	{ "number", spoil_number },
};

static int carry_out(bool undo)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		if (strcmp(all[i].name, what))
			continue;
		down_write(scan_lock);
		all[i].spoil(undo);
		up_write(scan_lock);
		return 0;
	}
	return -EINVAL;
}

static bool has_nodes(void)
{
	return stripe->tree.rb_node && stripe->tree.rb_node->rb_left;
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
	scan_lock = (void *)lookup("samepage:sp_scan_lock");
	stripe = (void *)lookup("samepage:sp_stripes");
	if (!scan_lock || !stripe || !lookup("samepage:sp_leaves"))
		return -ENOENT;
	leaves = *(union sp_id ***)lookup("samepage:sp_leaves");
	for (i = 1; i < SP_STRIPES && !has_nodes(); i++)
		stripe++;
	if (!has_nodes() || !root()->sharers)
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
