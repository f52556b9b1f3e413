// SPDX-License-Identifier: GPL-2.0-only
/* What kernel.h declares. */
#include "kernel.h"

#include <sys/random.h>

unsigned int fail_every;
bool has_crc;
struct page zero_page;

static void fail(const char *why)
{
	fprintf(stderr, "%s\n", why);
	abort();
}

void *allocate(size_t size)
{
	static unsigned int allocations;

	if (fail_every && ++allocations % fail_every == 0)
		return NULL;
	return calloc(1, size);
}

struct kmem_cache *kmem_cache_of(size_t size)
{
	struct kmem_cache *cache = calloc(1, sizeof(*cache));

	cache->size = size;
	return cache;
}

void take(struct mutex *lock)
{
	if (lock->held)
		fail("a lock is taken twice");
	lock->held = true;
}

void let_go(struct mutex *lock)
{
	if (!lock->held)
		fail("a lock is let go that was not taken");
	lock->held = false;
}

bool folio_try_get(struct folio *folio)
{
	return folio->mapped > 0;
}

void folio_lock(struct folio *folio)
{
	if (folio->locked)
		fail("a folio is locked twice");
	folio->locked = true;
}

void folio_unlock(struct folio *folio)
{
	folio->locked = false;
}

void get_random_bytes(void *into, size_t size)
{
	if (getrandom(into, size, 0) != (ssize_t)size)
		fail("getrandom");
}

u32 get_random_u32(void)
{
	u32 number;

	get_random_bytes(&number, sizeof(number));
	return number;
}

void INIT_LIST_HEAD(struct list_head *list)
{
	list->next = list;
	list->prev = list;
}

void list_add(struct list_head *entry, struct list_head *list)
{
	entry->next = list->next;
	entry->prev = list;
	list->next->prev = entry;
	list->next = entry;
}

void list_del_init(struct list_head *entry)
{
	entry->next->prev = entry->prev;
	entry->prev->next = entry->next;
	INIT_LIST_HEAD(entry);
}

void rb_link_node(struct rb_node *node, struct rb_node *parent, struct rb_node **link)
{
	*node = (struct rb_node){ .rb_parent = parent };
	*link = node;
}

static void put_in_place(struct rb_root *root, struct rb_node *node, struct rb_node *child)
{
	struct rb_node *parent = node->rb_parent;

	if (!parent)
		root->rb_node = child;
	else if (parent->rb_left == node)
		parent->rb_left = child;
	else
		parent->rb_right = child;
	if (child)
		child->rb_parent = parent;
}

void rb_erase(struct rb_node *node, struct rb_root *root)
{
	struct rb_node *next;

	if (!node->rb_left || !node->rb_right) {
		put_in_place(root, node, node->rb_left ? node->rb_left : node->rb_right);
		return;
	}
	for (next = node->rb_right; next->rb_left; next = next->rb_left)
		;
	put_in_place(root, next, next->rb_right);
	put_in_place(root, node, next);
	next->rb_left = node->rb_left;
	next->rb_right = node->rb_right;
	if (next->rb_left)
		next->rb_left->rb_parent = next;
	if (next->rb_right)
		next->rb_right->rb_parent = next;
}

static struct rb_node *leftmost(struct rb_node *node)
{
	while (node && node->rb_left)
		node = node->rb_left;
	return node;
}

struct rb_node *rb_first(const struct rb_root *root)
{
	return leftmost(root->rb_node);
}

struct rb_node *rb_next(const struct rb_node *node)
{
	if (node->rb_right)
		return leftmost(node->rb_right);
	while (node->rb_parent && node->rb_parent->rb_right == node)
		node = node->rb_parent;
	return node->rb_parent;
}

struct rb_node *rb_prev(const struct rb_node *node)
{
	struct rb_node *before = node->rb_left;

	while (before && before->rb_right)
		before = before->rb_right;
	if (before)
		return before;
	while (node->rb_parent && node->rb_parent->rb_left == node)
		node = node->rb_parent;
	return node->rb_parent;
}

void *xa_load(const struct xarray *array, unsigned long index)
{
	for (int i = 0; i < XA_ENTRIES; i++)
		if (array->entry[i] && array->index[i] == index)
			return array->entry[i];
	return NULL;
}

int xa_store(struct xarray *array, unsigned long index, void *entry, gfp_t gfp)
{
	void *room = allocate(1);	/* which may fail */

	(void)gfp;
	if (!room)
		return -ENOMEM;
	free(room);
	for (int i = 0; i < XA_ENTRIES; i++) {
		if (array->entry[i])
			continue;
		array->entry[i] = entry;
		array->index[i] = index;
		return 0;
	}
	fail("an XArray is full");
	return 0;
}

void xa_erase(struct xarray *array, unsigned long index)
{
	for (int i = 0; i < XA_ENTRIES; i++)
		if (array->index[i] == index)
			array->entry[i] = NULL;
}

void *xa_find_from(const struct xarray *array, unsigned long *index, unsigned long last)
{
	void *found = NULL;
	unsigned long best = last;

	for (int i = 0; i < XA_ENTRIES; i++) {
		if (!array->entry[i] || array->index[i] < *index || array->index[i] > best)
			continue;
		found = array->entry[i];
		best = array->index[i];
	}
	*index = best;
	return found;
}
