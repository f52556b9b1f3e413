// SPDX-License-Identifier: GPL-2.0-only
/*
 * The unstable tree: pages that stayed the same for a pass and found no twin.
 *
 * They are not write-protected, so a page may change under its key. The order
 * of the tree does not suffer, as the key is kept in the node: a page that
 * changed is found to be stale when its twin is tried, or at its next scan.
 * No two items have the same key. Guarded by sp_scan_mutex.
 */
#include "samepage.h"

static struct rb_root sp_unstable_tree = RB_ROOT;

static struct sp_key sp_item_key(const struct sp_item *item)
{
	return (struct sp_key) {
		.signature = item->signature,
		.domain = item->domain,
		.nid = item->nid,
	};
}

struct sp_item *sp_unstable_find(const struct sp_key *key)
{
	struct rb_node *node = sp_unstable_tree.rb_node;

	while (node) {
		struct sp_item *item = rb_entry(node, struct sp_item, node);
		struct sp_key have = sp_item_key(item);
		int order = sp_key_order(key, &have);

		if (!order)
			return item;
		node = order < 0 ? node->rb_left : node->rb_right;
	}
	return NULL;
}

void sp_unstable_insert(struct sp_item *item, const struct sp_key *key)
{
	struct rb_node **link = &sp_unstable_tree.rb_node, *parent = NULL;

	while (*link) {
		struct sp_key have;

		parent = *link;
		have = sp_item_key(rb_entry(parent, struct sp_item, node));
		link = sp_key_order(key, &have) < 0 ? &parent->rb_left :
						      &parent->rb_right;
	}
	item->state = SP_CANDIDATE;
	item->signature = key->signature;
	item->domain = key->domain;
	item->nid = key->nid;
	rb_link_node(&item->node, parent, link);
	rb_insert_color(&item->node, &sp_unstable_tree);
	sp_stats.pages_unshared++;
}

void sp_unstable_remove(struct sp_item *item)
{
	rb_erase(&item->node, &sp_unstable_tree);
	sp_stats.pages_unshared--;
}
