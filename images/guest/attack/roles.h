/* SPDX-License-Identifier: GPL-2.0-only */
/* Processes of the director's, by name. */
#ifndef ATTACK_ROLES_H
#define ATTACK_ROLES_H

#include "attack.h"

void start_role(const char *name, uid_t uid, const char *cgroup, const char *role, const char *cpu);
void tell_role(const char *name, const char *line);
void await_role(const char *name);		/* passes on what it says until it says "ok" */
const struct place *place_of(const char *name);	/* the area that it told of last */
void end_roles(void);

#endif
