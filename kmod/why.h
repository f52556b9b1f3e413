/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef SAMEPAGE_WHY_H
#define SAMEPAGE_WHY_H

#include <linux/types.h>

#include "samepage_abi.h"

struct mm_struct;

struct mm_struct *sp_mm_of(pid_t nr, unsigned int mode);
int sp_why(struct samepage_why *why);

#endif
