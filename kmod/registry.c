// SPDX-License-Identifier: GPL-2.0-only
/*
 * Registered address spaces and the cursor that walks over them.
 *
 * sp_registry_lock covers the hash, the list, the queues of tenants (turns.c), and the cursor,
 * which stands before the next space that a walk over all takes in hand. Scanners take
 * theirs from the queues. A space in hand belongs to whoever took it, and one that owns
 * blocks is left to the next that takes it: an exiting process frees neither, but passes
 * mmap_lock once. No scanner is in its page tables then, and none enters again, as it finds
 * mm_users at zero.
 * Memory of a space that is off the list goes with its last reference, and with
 * it the mm_struct, pinned by mmgrab().
 */
#include <linux/hashtable.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "samepage.h"

static DEFINE_SPINLOCK(sp_registry_lock);
static DEFINE_HASHTABLE(sp_space_hash, 10);
static LIST_HEAD(sp_space_list);
static struct list_head *sp_cursor;		/* NULL: no walk is under way */
static bool sp_insert_ahead;
static unsigned int sp_nr_spaces;

static struct kmem_cache *sp_space_cache;

static struct sp_space *sp_find(struct mm_struct *mm)
{
	struct sp_space *space;

	hash_for_each_possible(sp_space_hash, space, hash, (unsigned long)mm)
		if (space->mm == mm)
			return space;
	return NULL;
}

bool sp_registry_empty(void)
{
	return list_empty(&sp_space_list);
}

/* The space of @mm, or NULL. It stays while sp_scan_lock is held for writing and @mm has a user. */
struct sp_space *sp_registry_find(struct mm_struct *mm)
{
	struct sp_space *space;

	spin_lock(&sp_registry_lock);
	space = sp_find(mm);
	spin_unlock(&sp_registry_lock);
	return space;
}

bool sp_registered(struct mm_struct *mm)
{
	return sp_registry_find(mm);
}

/* How many address spaces are registered. */
unsigned int sp_registry_count(void)
{
	return READ_ONCE(sp_nr_spaces);
}

/*
 * The address spaces with records, in an array for kvfree(). NULL without memory.
 * Needs sp_scan_lock for writing, while which is held they stay.
 */
struct sp_space **sp_registry_recorded(unsigned int *nr)
{
	unsigned int room = sp_registry_count() + 1;
	struct sp_space **spaces = kvmalloc_array(room, sizeof(*spaces), GFP_KERNEL | __GFP_NOWARN);
	struct sp_space *space;

	*nr = 0;
	if (!spaces)
		return NULL;
	spin_lock(&sp_registry_lock);
	list_for_each_entry(space, &sp_space_list, list)
		if (*nr < room && !xa_empty(&space->blocks))
			spaces[(*nr)++] = space;
	spin_unlock(&sp_registry_lock);
	return spaces;
}

/* A reference less. */
void sp_space_put(struct sp_space *space)
{
	if (!refcount_dec_and_test(&space->refs))
		return;
	xa_destroy(&space->blocks);
	sp_domain_leave(space);
	mmdrop(space->mm);
	kmem_cache_free(sp_space_cache, space);
}

/* @space joins the tenant of this name, *@new if there is none yet. Needs sp_registry_lock. */
static void sp_registry_join(struct sp_space *space, const struct sp_tenant_name *name,
			     const struct sp_share *share, struct sp_tenant **new)
{
	struct sp_tenant *tenant = sp_tenant_find(name);

	if (!tenant) {
		tenant = *new;
		*new = NULL;
		sp_tenant_init(tenant, name);
	}
	tenant->share = *share;
	sp_turns_join(space, tenant);
}

/* Take @space off the list. Needs sp_registry_lock. */
static void sp_unlist(struct sp_space *space)
{
	if (sp_cursor == &space->list)
		sp_cursor = space->list.next;
	hash_del(&space->hash);
	list_del(&space->list);
	sp_turns_leave(space);
	WRITE_ONCE(sp_nr_spaces, sp_nr_spaces - 1);
}

/* @space is off the list. */
static void sp_let_go(struct sp_space *space, enum sp_fate fate)
{
	/*
	 * A live process keeps MMF_VM_MERGE_ANY: its next mapping registers it
	 * again.
	 */
	if (fate == SP_DROP_EXITED)
		mm_flags_clear(MMF_VM_MERGE_ANY, space->mm);
	mm_flags_clear(MMF_VM_MERGEABLE, space->mm);
	sp_space_put(space);
}

/* A walk over all address spaces begins. */
void sp_registry_begin(void)
{
	spin_lock(&sp_registry_lock);
	sp_cursor = sp_space_list.next;
	spin_unlock(&sp_registry_lock);
}

/* A pass begins, in turns. */
void sp_registry_begin_pass(void)
{
	spin_lock(&sp_registry_lock);
	sp_turns_begin();
	spin_unlock(&sp_registry_lock);
}

/* The next address space that it is the turn of, in hand of the caller, or NULL. */
struct sp_space *sp_registry_take_turn(void)
{
	struct sp_space *space;

	spin_lock(&sp_registry_lock);
	space = sp_turns_take();
	if (space)
		space->in_hand = true;
	spin_unlock(&sp_registry_lock);
	return space;
}

/* The turn ends: another one goes on with @space from @addr on. */
void sp_registry_set_aside(struct sp_space *space, unsigned long addr)
{
	spin_lock(&sp_registry_lock);
	space->in_hand = false;
	space->resume = addr;
	sp_turns_set_aside(space);
	spin_unlock(&sp_registry_lock);
}

/* Account what was spent on @space, which is in hand. */
void sp_registry_charge(struct sp_space *space, u64 ns, unsigned int looked, unsigned int found)
{
	spin_lock(&sp_registry_lock);
	sp_turns_charge(space->tenant, ns, looked, found);
	spin_unlock(&sp_registry_lock);
}

/* @space, which is in hand, is of this tenant, with this share. -ENOMEM: it stays with the other one. */
int sp_registry_set_tenant(struct sp_space *space, const struct sp_tenant_name *name,
			   const struct sp_share *share)
{
	struct sp_tenant *tenant, *new = NULL;
	bool other, due;

	spin_lock(&sp_registry_lock);
	tenant = space->tenant;
	other = !sp_is_tenant(tenant, name);
	if (!other)
		tenant->share = *share;
	spin_unlock(&sp_registry_lock);
	if (!other)
		return 0;
	new = kzalloc(sizeof(*new), GFP_KERNEL | __GFP_NOWARN);
	if (!new)
		return -ENOMEM;
	spin_lock(&sp_registry_lock);
	due = space->tenant->due;
	sp_turns_leave(space);
	sp_registry_join(space, name, share, &new);
	if (due)
		sp_turns_owe(space->tenant);
	spin_unlock(&sp_registry_lock);
	kfree(new);
	return 0;
}

/* The next address space of the walk, in hand of the caller, or NULL. */
struct sp_space *sp_registry_take(void)
{
	struct sp_space *space = NULL;

	spin_lock(&sp_registry_lock);
	if (sp_cursor && sp_cursor != &sp_space_list) {
		space = list_entry(sp_cursor, struct sp_space, list);
		space->in_hand = true;
		sp_cursor = sp_cursor->next;
	}
	spin_unlock(&sp_registry_lock);
	return space;
}

/* The caller is done with @space: a kept one may be freed by its exit now. */
void sp_registry_done(struct sp_space *space, enum sp_fate fate)
{
	spin_lock(&sp_registry_lock);
	space->in_hand = false;
	space->resume = 0;
	sp_turns_done(space);
	if (fate != SP_KEEP)
		sp_unlist(space);
	spin_unlock(&sp_registry_lock);
	if (fate != SP_KEEP)
		sp_let_go(space, fate);
}

/* The walk or the pass is over, or given up: nobody has a space in hand. */
void sp_registry_end(void)
{
	struct sp_space *space;

	spin_lock(&sp_registry_lock);
	sp_cursor = NULL;
	sp_turns_end();
	list_for_each_entry(space, &sp_space_list, list) {
		space->in_hand = false;
		space->in_turn = false;
		space->resume = 0;
	}
	spin_unlock(&sp_registry_lock);
}

/*
 * A new address space is scanned last, when it has taken shape. Only while all
 * is being unmerged must the walk under way come to it: it may have inherited
 * merged pages.
 */
void sp_registry_insert_ahead(bool ahead)
{
	spin_lock(&sp_registry_lock);
	sp_insert_ahead = ahead;
	spin_unlock(&sp_registry_lock);
}

/* What their spaces have, for each domain. Needs sp_scan_lock for writing. */
void sp_registry_sum_up(void)
{
	struct sp_space *space;

	spin_lock(&sp_registry_lock);
	list_for_each_entry(space, &sp_space_list, list) {
		struct sp_domain *home = space->home;

		if (!home)
			continue;
		home->sum_sharers += space->mm->ksm_merging_pages;
		home->sum_zero += sp_mm_zero_pages(space->mm);
		home->sum_blocks += space->nr_blocks;
	}
	spin_unlock(&sp_registry_lock);
}

/* Choose the domain of @mm, or that none is chosen any more. -EPERM, and -ENOENT where there is no choice to undo. */
int sp_registry_choose(struct mm_struct *mm, const struct sp_choice *choice, bool admin)
{
	struct sp_space *space;
	int err = 0;

	spin_lock(&sp_registry_lock);
	space = sp_find(mm);
	if (!space || (!choice->by && !space->choice.by))
		err = -ENOENT;
	else if (space->choice.by == SP_CHOSEN_BY_ADMIN && !admin)
		err = -EPERM;
	else
		space->choice = *choice;
	spin_unlock(&sp_registry_lock);
	return err;
}

struct sp_choice sp_registry_choice(struct sp_space *space)
{
	struct sp_choice choice;

	spin_lock(&sp_registry_lock);
	choice = space->choice;
	spin_unlock(&sp_registry_lock);
	return choice;
}

/* Whose is it? */
static void sp_tenant_of_mm(struct mm_struct *mm, struct sp_tenant_name *name,
			    struct sp_share *share)
{
	struct task_struct *owner;

	rcu_read_lock();
	owner = rcu_dereference(mm->owner);
	sp_tenant_of(owner ?: current, name, share);
	rcu_read_unlock();
}

/*
 * Register @mm, with the domain that was chosen for @parent, of which it is a fork; NULL
 * if it is not. A second registration changes nothing. -ENOMEM.
 */
int sp_enter(struct mm_struct *mm, struct mm_struct *parent)
{
	struct sp_space *from, *space = kmem_cache_zalloc(sp_space_cache, GFP_KERNEL);
	struct sp_tenant *new = kzalloc(sizeof(*new), GFP_KERNEL);
	struct sp_tenant_name name;
	struct sp_share share;
	bool was_empty;

	if (!space || !new) {
		if (space)
			kmem_cache_free(sp_space_cache, space);
		kfree(new);
		return -ENOMEM;
	}
	sp_tenant_of_mm(mm, &name, &share);
	space->mm = mm;
	refcount_set(&space->refs, 1);
	mutex_init(&space->records);
	xa_init(&space->blocks);

	spin_lock(&sp_registry_lock);
	if (sp_find(mm)) {
		spin_unlock(&sp_registry_lock);
		kmem_cache_free(sp_space_cache, space);
		kfree(new);
		return 0;
	}
	from = parent ? sp_find(parent) : NULL;
	if (from) {
		space->choice = from->choice;
		/* A child that is not one yet is in no cgroup. */
		name = from->tenant->name;
		share = from->tenant->share;
	}
	/* Fork may have copied the parent's. */
	mm->ksm_merging_pages = 0;
	mm->ksm_rmap_items = 0;
	was_empty = list_empty(&sp_space_list);
	WRITE_ONCE(sp_nr_spaces, sp_nr_spaces + 1);
	hash_add(sp_space_hash, &space->hash, (unsigned long)mm);
	list_add_tail(&space->list, sp_cursor && !sp_insert_ahead ? sp_cursor : &sp_space_list);
	if (sp_cursor == &sp_space_list && sp_insert_ahead)
		sp_cursor = &space->list;
	sp_registry_join(space, &name, &share, &new);
	mmgrab(mm);
	mm_flags_set(MMF_VM_MERGEABLE, mm);
	spin_unlock(&sp_registry_lock);

	kfree(new);
	if (was_empty)
		sp_scan_wake();
	sp_trace_enter(mm);
	return 0;
}

/*
 * @mm is given up: its process is gone, or exec failed to set it up. In the
 * latter case it has a user still and the caller holds mmap_lock: the next scanner
 * finds it empty and drops it. False when it was not registered here.
 */
bool sp_exit(struct mm_struct *mm)
{
	struct sp_space *space;
	bool unused = false;

	spin_lock(&sp_registry_lock);
	space = sp_find(mm);
	if (space && !space->in_hand && xa_empty(&space->blocks)) {
		sp_unlist(space);
		unused = true;
	} else if (space && !space->in_hand) {
		/* Let a scanner come to it soon. */
		sp_turns_hurry(space);
	}
	spin_unlock(&sp_registry_lock);

	if (unused) {
		sp_let_go(space, SP_DROP_EXITED);
	} else if (space && sp_mm_exiting(mm)) {
		mmap_write_lock(mm);
		mmap_write_unlock(mm);
	}
	if (space)
		sp_trace_exit(mm);
	return space;
}

/* Shares were changed: who was to wait for theirs is looked at now. */
void sp_registry_forgive(void)
{
	spin_lock(&sp_registry_lock);
	sp_turns_forgive();
	spin_unlock(&sp_registry_lock);
}

/* See sp_turns_faults(). */
unsigned int sp_registry_faults(void)
{
	unsigned int faults;

	spin_lock(&sp_registry_lock);
	faults = sp_turns_faults(sp_nr_spaces);
	spin_unlock(&sp_registry_lock);
	return faults;
}

static const char *const sp_tenant_by_names[] = {
	[SP_TENANT_ALL] = "all",
	[SP_TENANT_USER] = "user",
	[SP_TENANT_NAMESPACE] = "namespace",
	[SP_TENANT_CGROUP] = "cgroup",
	[SP_TENANT_SHARE] = "cgroup",
};

/* A line for each tenant. */
void sp_registry_show_tenants(struct seq_file *file)
{
	struct sp_tenant *tenant = NULL;

	seq_puts(file, "by who processes weight percent excluded timing_safe held scan_ns\n");
	spin_lock(&sp_registry_lock);
	while ((tenant = sp_tenant_after(tenant)))
		seq_printf(file, "%s %llu %u %u %u %d %d %d %llu\n",
			   sp_tenant_by_names[tenant->name.by], tenant->name.who,
			   tenant->nr_spaces, tenant->share.weight, tenant->share.percent,
			   tenant->share.excluded, tenant->share.timing_safe,
			   sp_tenant_is_held(tenant), tenant->scan_ns);
	spin_unlock(&sp_registry_lock);
}

int sp_registry_init(void)
{
	sp_space_cache = KMEM_CACHE(sp_space, 0);
	return sp_space_cache ? 0 : -ENOMEM;
}

void sp_registry_destroy(void)
{
	sp_turns_destroy();
	kmem_cache_destroy(sp_space_cache);
}
