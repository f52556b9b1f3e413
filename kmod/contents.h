/* SPDX-License-Identifier: GPL-2.0-only */
/* Contents that all domains share. */
#ifndef SAMEPAGE_CONTENTS_H
#define SAMEPAGE_CONTENTS_H

#include <linux/types.h>

struct page;
struct samepage_contents;
struct sp_space;

/* Changed with sp_scan_lock held for writing; NULL: there are none. */
extern struct sp_contents *sp_contents;
extern u32 sp_contents_epoch;	/* moves on when there are none any more */

bool sp_is_common(struct page *page, u64 sample);
int sp_contents_add(struct samepage_contents *asked);
int sp_contents_clear(void);
int sp_contents_leave(struct sp_space *space);
long sp_contents_count(void);
size_t sp_contents_bytes(void);
void sp_contents_destroy(void);

#endif
