// SPDX-License-Identifier: GPL-2.0-only
/*
 * Security domains: whose memory an address space is, and that pages are merged
 * within one domain only.
 *
 * A domain's number is part of every key, so that no search compares across. It is
 * held by the spaces that are in the domain and by the stable nodes of its pages, so
 * it stands for nobody else as long as there is such a key.
 *
 * A space's domain changes with its process (another user, another cgroup) or with
 * the policy. The scanner looks whenever it takes a space in hand: what the space
 * has merged is unmerged then, and nothing of it is known any more. A space that
 * cannot be unmerged for lack of memory is passed by until it can. The policy
 * changes with sp_scan_lock held for writing, and all spaces with it.
 *
 * sp_domain_lock (a spinlock, innermost) covers the list of domains. A space's home
 * changes under its records, by who has it in hand.
 */
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "samepage.h"
#include "contents.h"
#include "control.h"
#include "explicit.h"

#define SP_DOMAINS_ASKED 1024

const char *const sp_domain_by_names[SP_NR_BY] = {
	[SP_BY_NONE] = "none",
	[SP_BY_USER] = "user",
	[SP_BY_CGROUP] = "cgroup",
	[SP_BY_EXPLICIT] = "explicit",
};

static DEFINE_SPINLOCK(sp_domain_lock);
static LIST_HEAD(sp_domain_list);
static DEFINE_XARRAY_ALLOC1(sp_domains);	/* by number */
/* Who has not asked for more than in-tree KSM gives is yet kept apart from other users. */
static enum sp_domain_by sp_by = SP_BY_USER;
static unsigned int sp_level;

/* Where there is one domain for all, it has no name and no number. */
static struct sp_domain sp_domain_of_all = { .refs = REFCOUNT_INIT(1) };
/* No space is in it, only nodes are. */
static struct sp_domain sp_everybody = { .refs = REFCOUNT_INIT(1), .id = SP_EVERYBODY };

enum sp_domain_by sp_domain_policy(void)
{
	return READ_ONCE(sp_by);
}

/* Of the cgroup that counts, counted from the root; 0: the process's own. */
unsigned int sp_domain_level(void)
{
	return READ_ONCE(sp_level);
}

/* The cgroup that counts. Needs RCU. */
u64 sp_domain_cgroup(struct task_struct *task)
{
	struct cgroup_subsys_state *css = task_css(task, memory_cgrp_id);
	struct cgroup *cgroup = css ? css->cgroup : task_dfl_cgroup(task);
	unsigned int level = sp_domain_level();

	if (level && cgroup->level > level)
		cgroup = cgroup_ancestor(cgroup, level);
	return cgroup_id(cgroup);
}

struct sp_belonging {
	struct sp_domain_name domain;
	struct sp_tenant_name tenant;
	struct sp_share share;
};

/* Whose is the address space? False when nobody's: its process is just ending. */
static bool sp_name(struct sp_space *space, struct sp_belonging *to)
{
	struct sp_domain_name *name = &to->domain;
	struct task_struct *owner;
	const struct cred *cred;

	*name = (struct sp_domain_name) { .by = sp_by };
	rcu_read_lock();
	owner = rcu_dereference(space->mm->owner);
	if (owner && (sp_by == SP_BY_USER || sp_by == SP_BY_EXPLICIT)) {
		/*
		 * Whoever may act as a user may look at that user's memory: what counts is
		 * the effective one. The number says who, in any namespace; which of them
		 * it is only divides further, so that its address may be used again.
		 */
		cred = __task_cred(owner);
		name->who = __kuid_val(cred->euid);
		name->within = cred->user_ns;
		if (sp_by == SP_BY_EXPLICIT)
			sp_explicit_name(space, owner, name);
	} else if (owner && sp_by == SP_BY_CGROUP) {
		name->who = sp_domain_cgroup(owner);
	}
	if (owner) {
		sp_tenant_of(owner, &to->tenant, &to->share);
		/* What is timing-safe is merged with nothing that is not: it is another domain. */
		name->timing_safe = to->share.timing_safe && !sp_all_timing_safe();
	}
	rcu_read_unlock();
	return owner;
}

static bool sp_is_named(const struct sp_domain *domain, const struct sp_domain_name *name)
{
	return domain->name.by == name->by && domain->name.who == name->who &&
	       domain->name.within == name->within && domain->name.chosen == name->chosen &&
	       domain->name.timing_safe == name->timing_safe;
}

/* The domain of this name with a reference, or NULL. Needs sp_domain_lock. */
static struct sp_domain *sp_find_domain(const struct sp_domain_name *name)
{
	struct sp_domain *domain;

	list_for_each_entry(domain, &sp_domain_list, list)
		if (sp_is_named(domain, name) && refcount_inc_not_zero(&domain->refs))
			return domain;
	return NULL;
}

static void sp_domain_put(struct sp_domain *domain)
{
	if (!refcount_dec_and_lock(&domain->refs, &sp_domain_lock))
		return;
	list_del(&domain->list);
	spin_unlock(&sp_domain_lock);
	xa_erase(&sp_domains, domain->id);
	kfree(domain);
}

/* A new domain with a reference; NULL without memory, or when all numbers are taken. */
static struct sp_domain *sp_new_domain(const struct sp_domain_name *name)
{
	struct sp_domain *domain = kzalloc(sizeof(*domain), GFP_KERNEL | __GFP_NOWARN);
	/* Anybody may choose, and so use up numbers: some are left for who does not. */
	bool anybody = name->by == SP_BY_EXPLICIT && name->who != SP_ADMINISTRATOR;
	u32 id, last = anybody ? U16_MAX / 2 : SP_EVERYBODY - 1;

	if (!domain)
		return NULL;
	domain->name = *name;
	refcount_set(&domain->refs, 1);
	if (xa_alloc(&sp_domains, &id, domain, XA_LIMIT(1, last), GFP_KERNEL | __GFP_NOWARN)) {
		kfree(domain);
		return NULL;
	}
	domain->id = id;
	return domain;
}

/* The domain of this name, with a reference, or NULL. */
static struct sp_domain *sp_get_domain(const struct sp_domain_name *name)
{
	struct sp_domain *domain, *new;

	spin_lock(&sp_domain_lock);
	domain = sp_find_domain(name);
	spin_unlock(&sp_domain_lock);
	if (domain)
		return domain;
	new = sp_new_domain(name);
	if (!new)
		return NULL;
	spin_lock(&sp_domain_lock);
	domain = sp_find_domain(name);	/* another scanner may have come first */
	if (!domain)
		list_add_tail(&new->list, &sp_domain_list);
	spin_unlock(&sp_domain_lock);
	if (!domain)
		return new;
	xa_erase(&sp_domains, new->id);
	kfree(new);
	return domain;
}

/* The domain of a key that somebody holds. */
static struct sp_domain *sp_domain_of(u16 id)
{
	if (id == SP_EVERYBODY)
		return &sp_everybody;
	return id ? xa_load(&sp_domains, id) : &sp_domain_of_all;
}

/* A stable node of the domain @id comes to be: whoever makes it has a space of that domain in hand. */
void sp_domain_hold(u16 id)
{
	struct sp_domain *domain = sp_domain_of(id);

	refcount_inc(&domain->refs);
	atomic_long_inc(&domain->shared);
}

/* It is no more. */
void sp_domain_release(u16 id)
{
	struct sp_domain *domain = sp_domain_of(id);

	atomic_long_dec(&domain->shared);
	sp_domain_put(domain);
}

/* The space is in no domain any more. */
void sp_domain_leave(struct sp_space *space)
{
	if (!space->home)
		return;
	atomic_long_dec(&space->home->spaces);
	sp_domain_put(space->home);
	space->home = NULL;
}

static void sp_domain_enter(struct sp_space *space, struct sp_domain *domain)
{
	sp_records_lock(space);
	sp_domain_leave(space);
	atomic_long_inc(&domain->spaces);
	space->home = domain;
	space->domain = domain->id;
	space->timing_safe = domain->name.timing_safe;
	sp_records_unlock(space);
}

/* Give up all that the space has merged, and its records. 0 or an errno. */
static int sp_unmerge_space(struct sp_space *space)
{
	int err;

	sp_records_lock(space);
	mmap_read_lock(space->mm);
	err = sp_unmerge_mm(space->mm);
	if (!err) {
		sp_forget_range(space, 0, ULONG_MAX);
		space->resume = 0;
	}
	mmap_read_unlock(space->mm);
	sp_records_unlock(space);
	return err;
}

/* Its cgroup takes no part: nothing of it is merged any more. */
static void sp_exclude(struct sp_space *space)
{
	if (space->excluded || sp_unmerge_space(space))
		return;
	sp_records_lock(space);
	sp_domain_leave(space);
	space->excluded = true;
	sp_records_unlock(space);
}

/*
 * See to it that the space, which is in hand, is where it belongs: with its tenant, and in
 * its domain. False when it is in none: nothing may be merged in it.
 */
bool sp_domain_settle(struct sp_space *space)
{
	struct sp_domain *domain = &sp_domain_of_all;
	struct sp_belonging to;

	/* One that is exiting is only to be dropped. */
	if (!sp_name(space, &to))
		return space->home || sp_mm_exiting(space->mm);
	/* Without memory for another tenant it goes on with the one that it has. */
	sp_registry_set_tenant(space, &to.tenant, &to.share);
	if (unlikely(to.share.excluded)) {
		sp_exclude(space);
		return sp_mm_exiting(space->mm);
	}
	space->excluded = false;
	if (unlikely(space->contents_epoch != sp_contents_epoch) && sp_contents_leave(space))
		return false;
	if (likely(space->home && sp_is_named(space->home, &to.domain)))
		return true;
	if (to.domain.by == SP_BY_NONE && !to.domain.timing_safe)
		refcount_inc(&domain->refs);
	else
		domain = sp_get_domain(&to.domain);
	if (!domain)
		return sp_mm_exiting(space->mm);
	if (space->home && sp_unmerge_space(space)) {
		sp_domain_put(domain);
		return false;
	}
	sp_domain_enter(space, domain);
	return true;
}

/*
 * Another policy: all that may not be shared any more is unmerged. 0, or an errno when
 * that could not be done at once: the scanner goes on with it.
 */
int sp_domain_set(enum sp_domain_by by, unsigned int level)
{
	struct sp_space *space;
	int err = 0;

	sp_scan_lock_all();
	if (by == sp_by && level == sp_level)
		goto unlock;
	WRITE_ONCE(sp_by, by);
	WRITE_ONCE(sp_level, level);
	set_current_oom_origin();
	sp_scan_reset();
	sp_registry_begin();
	while ((space = sp_registry_take())) {
		if (!sp_domain_settle(space) && !space->excluded && !sp_mm_exiting(space->mm))
			err = signal_pending(current) ? -ERESTARTSYS : -ENOMEM;
		sp_registry_done(space, SP_KEEP);
		cond_resched();
	}
	sp_registry_end();
	clear_current_oom_origin();
unlock:
	up_write(&sp_scan_lock);
	return err;
}

/* Is it any of the first SP_DOMAINS_ASKED of them? Needs sp_scan_lock for writing. */
bool sp_any_domain(bool (*is_it)(u16 id, void *arg), void *arg)
{
	unsigned int left = SP_DOMAINS_ASKED;
	struct sp_domain *domain;
	bool found = false;

	spin_lock(&sp_domain_lock);
	list_for_each_entry(domain, &sp_domain_list, list) {
		found = is_it(domain->id, arg);
		if (found || !--left)
			break;
	}
	spin_unlock(&sp_domain_lock);
	return found;
}

static const char *sp_domain_kind(const struct sp_domain *domain)
{
	return domain->id == SP_EVERYBODY ? "everybody" : sp_domain_by_names[domain->name.by];
}

static void sp_show_domain(struct seq_file *file, const struct sp_domain *domain)
{
	long shared = atomic_long_read(&domain->shared);
	/* Nodes whose folio has just gone have sharers no more. */
	long sharing = max(domain->sum_sharers - shared, 0L);
	long kept = domain->sum_blocks * sizeof(struct sp_block) +
		    domain->sum_sharers * sizeof(struct sp_item) + shared * sizeof(struct sp_stable);
	long profit = (sharing + domain->sum_zero) * (long)PAGE_SIZE - kept;

	seq_printf(file, "%u %s %lld %ld %ld %ld %ld %lld %ld %ld %llu %d\n", domain->id,
		   sp_domain_kind(domain), (s64)domain->name.who,
		   atomic_long_read(&domain->spaces),
		   shared, sharing, domain->sum_zero, atomic64_read(&domain->scan_ns),
		   atomic_long_read(&domain->copies), profit, domain->name.chosen,
		   domain->id != SP_EVERYBODY &&
		   (sp_all_timing_safe() || domain->name.timing_safe));
}

static void sp_forget_sums(struct sp_domain *domain)
{
	domain->sum_sharers = 0;
	domain->sum_zero = 0;
	domain->sum_blocks = 0;
}

/* Who shares a content that is for all was taken for a sharer of the own domain's. */
static void sp_sum_everybody(void)
{
	struct sp_stripe *stripe;
	struct sp_stable *stable;
	struct sp_item *item;

	sp_for_each_stripe(stripe) {
		sp_for_each_stable(stable, stripe) {
			if (stable->key.domain != SP_EVERYBODY)
				continue;
			sp_for_each_sharer(item, stable) {
				sp_sharer_block(item->page)->owner->home->sum_sharers--;
				sp_everybody.sum_sharers++;
			}
			cond_resched();
		}
	}
}

/* A line for each domain. */
void sp_domains_show(struct seq_file *file)
{
	struct sp_domain *domain;

	seq_puts(file, "id by who processes shared sharing zero scan_ns copies profit name timing_safe\n");
	/* Exact: nothing is merged meanwhile. */
	sp_scan_lock_all();
	spin_lock(&sp_domain_lock);
	list_for_each_entry(domain, &sp_domain_list, list)
		sp_forget_sums(domain);
	sp_forget_sums(&sp_domain_of_all);
	sp_forget_sums(&sp_everybody);
	spin_unlock(&sp_domain_lock);
	sp_registry_sum_up();
	if (atomic_long_read(&sp_everybody.shared))
		sp_sum_everybody();
	if (atomic_long_read(&sp_domain_of_all.spaces) || sp_by == SP_BY_NONE)
		sp_show_domain(file, &sp_domain_of_all);
	if (sp_contents || sp_everybody.sum_sharers)
		sp_show_domain(file, &sp_everybody);
	spin_lock(&sp_domain_lock);
	list_for_each_entry(domain, &sp_domain_list, list)
		sp_show_domain(file, domain);
	spin_unlock(&sp_domain_lock);
	up_write(&sp_scan_lock);
}

void sp_domains_destroy(void)
{
	xa_destroy(&sp_domains);
}
