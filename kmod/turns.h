/* SPDX-License-Identifier: GPL-2.0-only */
/* Tenants, and the turns in which they are scanned. */
#ifndef SAMEPAGE_TURNS_H
#define SAMEPAGE_TURNS_H

#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/types.h>

struct sp_space;
struct task_struct;

/* Ids of cgroups that are domains may be of version 1; those with a share are of version 2. */
enum sp_tenant_by {
	SP_TENANT_ALL,
	SP_TENANT_USER,
	SP_TENANT_NAMESPACE,
	SP_TENANT_CGROUP,
	SP_TENANT_SHARE,
};

/* Who takes turns: a name that nobody can have several of at will. */
struct sp_tenant_name {
	enum sp_tenant_by by;
	u64 who;
};

#define SP_WEIGHT_DEFAULT	100
#define SP_WEIGHT_MAX		10000
#define SP_PERCENT_MAX		1600

/* What an administrator said of a cgroup. */
struct sp_share {
	u16 weight;
	u16 percent;			/* of a CPU, 0: no limit */
	bool excluded;			/* nothing of it is merged */
	bool timing_safe;		/* see timing.c */
};

struct sp_tenant {
	struct sp_tenant_name name;
	struct sp_share share;
	struct list_head list;		/* of all tenants */
	struct list_head spaces;
	struct list_head *cursor;	/* what it has next; NULL: no pass is under way */
	unsigned int nr_spaces, in_hand;
	bool due;			/* in this pass it has not been through yet */
	struct rb_root_cached *queue;	/* it waits in, NULL: in none */
	struct rb_node node;
	struct list_head held;
	unsigned long anew;		/* when it last began anew, in jiffies */
	u64 vtime;			/* ns by weight, in this pass */
	u64 paid_until;			/* by its percent, in local_clock() */
	u64 scan_ns;			/* ever */
};

/* tenants.c: who is it? Needs RCU. */
void sp_tenant_of(struct task_struct *task, struct sp_tenant_name *name, struct sp_share *share);
int sp_share_set(u64 cgroup, const struct sp_share *share);
int sp_share_clear(u64 cgroup);
void sp_shares_destroy(void);

/* turns.c: needs sp_registry_lock. */
struct sp_tenant *sp_tenant_find(const struct sp_tenant_name *name);
bool sp_is_tenant(const struct sp_tenant *tenant, const struct sp_tenant_name *name);
void sp_tenant_init(struct sp_tenant *tenant, const struct sp_tenant_name *name);
void sp_turns_join(struct sp_space *space, struct sp_tenant *tenant);
void sp_turns_leave(struct sp_space *space);
void sp_turns_begin(void);
struct sp_space *sp_turns_take(void);
void sp_turns_done(struct sp_space *space);
void sp_turns_set_aside(struct sp_space *space);
void sp_turns_hurry(struct sp_space *space);
void sp_turns_charge(struct sp_tenant *tenant, u64 ns, unsigned int looked, unsigned int found);
void sp_turns_end(void);
void sp_turns_owe(struct sp_tenant *tenant);
void sp_turns_forgive(void);
void sp_turns_destroy(void);
unsigned int sp_turns_faults(unsigned int nr_spaces);
struct sp_tenant *sp_tenant_after(struct sp_tenant *tenant);

/* The same, without the lock: by the time of the answer it may be otherwise. */
bool sp_turns_waiting(void);
bool sp_turns_over(void);
bool sp_turns_shared(const struct sp_tenant *tenant);
bool sp_tenant_is_held(const struct sp_tenant *tenant);

#endif
