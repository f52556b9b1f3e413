/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef SAMEPAGE_WHY_H
#define SAMEPAGE_WHY_H

#include "samepage_abi.h"

int sp_why(struct samepage_why *why);

#endif
