// SPDX-License-Identifier: GPL-2.0-only
/* Moving a page to a frame of one's choice, by the kernel's own migration. */
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/vmstat.h>

#include "compat.h"

#ifdef SP_HAVE_MIGRATE_FOLIO
static struct folio *sp_migration_target(struct folio *folio, unsigned long frame)
{
	struct page *(*get)(int nid) = (void *)frame;
	struct page *page = get(folio_nid(folio));

	return page ? page_folio(page) : NULL;
}

static bool sp_isolate(struct folio *folio)
{
	return folio_isolate_lru(folio);
}
#else
static struct page *sp_migration_target(struct page *page, unsigned long frame)
{
	struct page *(*get)(int nid) = (void *)frame;

	return get(page_to_nid(page));
}

static bool sp_isolate(struct folio *folio)
{
	return !folio_isolate_lru(folio);
}
#endif

/*
 * Move the content of @folio, of which the caller has a reference that is dropped, to a
 * frame that @get gives for its node. False when somebody holds it, or without memory.
 */
bool sp_move_folio(struct folio *folio, struct page *(*get)(int nid))
{
	bool isolated = sp_isolate(folio);
	LIST_HEAD(list);

	if (isolated) {
		list_add(&folio->lru, &list);
		mod_node_page_state(folio_pgdat(folio),
				    NR_ISOLATED_ANON + folio_is_file_lru(folio), 1);
	}
	folio_put(folio);
	if (!isolated)
		return false;
	if (!migrate_pages(&list, sp_migration_target, NULL, (unsigned long)get, MIGRATE_ASYNC,
			   MR_NUMA_MISPLACED, NULL))
		return true;
	if (!list_empty(&list))
		putback_movable_pages(&list);
	return false;
}
