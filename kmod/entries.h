/* SPDX-License-Identifier: GPL-2.0-only */
/* What the page-table entries of a block say; @ptep: of its first page. */
#ifndef SAMEPAGE_ENTRIES_H
#define SAMEPAGE_ENTRIES_H

#include <linux/pgtable.h>
#include <linux/types.h>

struct sp_block;

struct sp_entries {
	u64 none;
	u64 clean;	/* something is mapped, and was not written */
};

struct sp_entries sp_read_entries(pte_t *ptep);
u64 sp_read_present(pte_t *ptep);
u64 sp_clean_sharers(struct sp_block *block, pte_t *ptep, u64 clean);

#endif
