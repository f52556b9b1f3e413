// SPDX-License-Identifier: GPL-2.0-only
/* Signatures of the pages of a batch, taken without any lock of theirs: by them equals are looked for. */
#include <linux/mm.h>

#include "batch.h"
#include "contents.h"

/* Pages that are signed before others get the CPU, where tasks are not preempted. */
#define SP_SIGNED_AT_ONCE 16

/*
 * For all pages of a batch; @special: there may be some that are merged alone.
 * What most batches need is compiled apart.
 */
static __always_inline void sp_sign_all(struct sp_batch *batch, const bool special)
{
	bool alone = special && sp_timing_safe(batch->space);
	struct sp_found *found = batch->found;
	unsigned int i;

	for (i = 0; i < batch->count; i++, found++) {
		if (i % SP_SIGNED_AT_ONCE == 0)
			cond_resched();
		if (found->todo != SP_TODO_SIGN)
			continue;
		found->nid = sp_page_nid(page_to_pfn(found->page));
		found->sample = sp_sample(found->page);
		found->special = sp_crowded(found->sample) ? SP_CROWDED : 0;
		if (found->special)
			found->full = sp_full_signature(found->page);
		if (alone)
			found->special |= SP_ALONE;
		else if (special && sp_is_common(found->page, found->sample))
			found->special |= SP_COMMON | SP_ALONE;
		folio_put(page_folio(found->page));	/* put_page() of 7.3 asks what else it may be */
	}
}

static noinline void sp_sign_special(struct sp_batch *batch)
{
	sp_sign_all(batch, true);
}

/*
 * Take signatures and drop the references: a huge page can only be split
 * without. A merged page keeps its own, and thereby its stable node.
 */
void sp_take_signatures(struct sp_batch *batch)
{
	if (unlikely(sp_contents || sp_timing_safe(batch->space)))
		sp_sign_special(batch);
	else
		sp_sign_all(batch, false);
}
