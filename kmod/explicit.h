/* SPDX-License-Identifier: GPL-2.0-only */
/* Domains that somebody chose. */
#ifndef SAMEPAGE_EXPLICIT_H
#define SAMEPAGE_EXPLICIT_H

#include <linux/types.h>

#include "samepage_abi.h"

struct sp_domain_name;
struct sp_space;
struct task_struct;

int sp_explicit_choose(const struct samepage_domain *asked, bool set);
void sp_explicit_name(struct sp_space *space, struct task_struct *owner,
		      struct sp_domain_name *name);
void sp_explicit_destroy(void);

#endif
