/* SPDX-License-Identifier: GPL-2.0-only */
/* What pages hold and how they are digested; harness/ksm/content.py says the same in NumPy. */
#ifndef MEMWORK_CONTENT_H
#define MEMWORK_CONTENT_H

#include <stdint.h>

#include "protocol.h"

enum kind {
	KIND_ZERO,
	KIND_FILLED,	/* every word from the key */
	KIND_PREFIX,	/* the last 64 bytes from the key, all before them from its high 32 bits alone */
	KIND_BYTE,	/* every byte is the low byte of the key */
	KIND_WORD,	/* one word from the key, at a place that it chooses, all others from its high 32 bits alone */
	KINDS,
};

void fill_page(uint64_t *page, enum kind kind, uint64_t key);

/* Choose the digests' key; must come before the first digest. */
void set_secret(uint64_t secret);
uint64_t digest_page(const uint64_t *page);

#endif
