/* SPDX-License-Identifier: GPL-2.0-only */
/* Timing-safe merging: a write, or an unmap, tells nothing of others' pages. */
#ifndef SAMEPAGE_TIMING_H
#define SAMEPAGE_TIMING_H

#include <linux/jump_label.h>
#include <linux/types.h>

struct folio;
struct page;
struct sp_found;
struct sp_key;
struct sp_stable;

/* Of all domains; changed with sp_scan_lock held for writing. Asked often: the code is patched. */
DECLARE_STATIC_KEY_FALSE(sp_timing_on);

static inline bool sp_all_timing_safe(void)
{
	return static_branch_unlikely(&sp_timing_on);
}

int sp_timing_set(bool on);
bool sp_find_frame(struct sp_stable *stable);
void sp_merge_alone(const struct sp_found *found, const struct sp_key *key);
void sp_keep(struct sp_stable *stable, struct folio *folio);
void sp_unkeep(struct sp_stable *stable, struct folio *folio);
void sp_unkeep_unmapped(struct sp_stable *stable, struct folio *folio);
void sp_unkeep_all(void);
void sp_keep_all(void);
int sp_timing_init(void);
void sp_timing_exit(void);

/* frames.c */
struct page *sp_frame_get(int nid);
void sp_frames_drop(void);
unsigned long sp_frames_held(void);
void sp_frames_destroy(void);

#endif
