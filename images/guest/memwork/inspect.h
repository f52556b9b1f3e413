/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel says of a worker's memory, and what is asked of it for whole ranges. */
#ifndef MEMWORK_INSPECT_H
#define MEMWORK_INSPECT_H

#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

/* Bits of struct frame's pagemap. */
#define PRESENT		(1ull << 63)
#define SWAPPED		(1ull << 62)

/* All return 0 or an errno. */
int read_frames(int pid, uint64_t address, uint64_t pages, struct frame *frames);
int move_ranges(const struct range *ranges, size_t count, uint64_t pages, int node, int *status);

/* Must be called before the host has anything mapped: all there is then is memwork's own. */
void remember_own_memory(void);
int merge_any_on(void);
int merge_any_off(void);

#endif
