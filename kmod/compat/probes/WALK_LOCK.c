// SPDX-License-Identifier: GPL-2.0-only
/* Page walks are told how mappings are locked */
#include <linux/pagewalk.h>
extern const struct mm_walk_ops probe;
const struct mm_walk_ops probe = { .walk_lock = PGWALK_RDLOCK };
