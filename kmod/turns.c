// SPDX-License-Identifier: GPL-2.0-only
/*
 * Turns: whose memory is scanned next, so that no tenant slows the others' merging by
 * having much memory, or memory that is dear to scan.
 *
 * A tenant's address spaces stand in a queue. A pass is over when each tenant has been
 * through its own once; until then all that were registered at its begin are *due*. Who
 * had least of the scanners' time, by weight, is next, and is put off for the others after
 * a turn of SP_TURN_NS (batch.h), in the middle of an address space if need be. Who has been
 * through begins anew while others are due, *early*: so the pages of small tenants are merged
 * soon whatever the big ones do. All that is early takes half of the time at most, and
 * what there was little to do in counts SP_QUIET_TIMES.
 *
 * A tenant with a limit pays for a ns of scanning with 100 / percent ns until it is its turn again.
 *
 * All of it needs sp_registry_lock. A tenant goes with its last address space, or at the begin of
 * a pass after it has paid.
 */
#include <linux/jiffies.h>
#include <linux/math64.h>
#include <linux/sched/clock.h>
#include <linux/slab.h>

#include "samepage.h"

#define SP_QUIET_TIMES	16
/* Pages with something to do, of those looked at: less is quiet. Audits alone are an eighth. */
#define SP_QUIET_PART	4

static LIST_HEAD(sp_tenants);
static LIST_HEAD(sp_held);		/* that are to wait */
static struct rb_root_cached sp_due = RB_ROOT_CACHED, sp_early = RB_ROOT_CACHED;
static unsigned int sp_nr_tenants, sp_nr_due;
static u64 sp_due_ns, sp_early_ns;	/* of scanning, in this pass */
static bool sp_under_way;

static bool sp_has_more(const struct sp_tenant *tenant)
{
	return tenant->cursor && tenant->cursor != &tenant->spaces;
}

static bool sp_comes_before(struct rb_node *a, const struct rb_node *b)
{
	return rb_entry(a, struct sp_tenant, node)->vtime <
	       rb_entry(b, struct sp_tenant, node)->vtime;
}

static struct sp_tenant *sp_first(const struct rb_root_cached *queue)
{
	return rb_entry_safe(rb_first_cached(queue), struct sp_tenant, node);
}

bool sp_tenant_is_held(const struct sp_tenant *tenant)
{
	return tenant->share.percent && READ_ONCE(tenant->paid_until) > local_clock();
}

static void sp_unqueue(struct sp_tenant *tenant)
{
	if (tenant->queue)
		rb_erase_cached(&tenant->node, tenant->queue);
	tenant->queue = NULL;
	list_del_init(&tenant->held);
}

/* Beyond its percent, or just begun anew: who has next to nothing would do so all the time. */
static bool sp_is_to_wait(const struct sp_tenant *tenant)
{
	return sp_tenant_is_held(tenant) ||
	       (!tenant->due && tenant->cursor == tenant->spaces.next && !time_after(jiffies, tenant->anew));
}

/* Put the tenant where it belongs, by what it has left to take and what it had. */
static void sp_queue(struct sp_tenant *tenant)
{
	sp_unqueue(tenant);
	if (!sp_has_more(tenant))
		return;
	if (sp_is_to_wait(tenant)) {
		list_add_tail(&tenant->held, &sp_held);
		return;
	}
	tenant->queue = tenant->due ? &sp_due : &sp_early;
	rb_add_cached(&tenant->node, tenant->queue, sp_comes_before);
}

/* The tenant has been through all of its spaces. */
static void sp_begin_anew(struct sp_tenant *tenant)
{
	sp_nr_due -= tenant->due;
	tenant->due = false;
	tenant->cursor = tenant->spaces.next;
	tenant->anew = jiffies;
	sp_queue(tenant);
}

/* It has less left to take, or nothing. */
static void sp_went_on(struct sp_tenant *tenant)
{
	if (tenant->cursor == &tenant->spaces && !tenant->in_hand)
		sp_begin_anew(tenant);
	else
		sp_queue(tenant);
}

bool sp_is_tenant(const struct sp_tenant *tenant, const struct sp_tenant_name *name)
{
	return tenant->name.by == name->by && tenant->name.who == name->who;
}

struct sp_tenant *sp_tenant_find(const struct sp_tenant_name *name)
{
	struct sp_tenant *tenant;

	list_for_each_entry(tenant, &sp_tenants, list)
		if (sp_is_tenant(tenant, name))
			return tenant;
	return NULL;
}

/* The one after @tenant, the first one for NULL. */
struct sp_tenant *sp_tenant_after(struct sp_tenant *tenant)
{
	struct list_head *next = tenant ? tenant->list.next : sp_tenants.next;

	return next == &sp_tenants ? NULL : list_entry(next, struct sp_tenant, list);
}

/* A new one, with no spaces and no share yet. */
void sp_tenant_init(struct sp_tenant *tenant, const struct sp_tenant_name *name)
{
	struct sp_tenant *due = sp_first(&sp_due);

	tenant->name = *name;
	INIT_LIST_HEAD(&tenant->spaces);
	INIT_LIST_HEAD(&tenant->held);
	list_add_tail(&tenant->list, &sp_tenants);
	WRITE_ONCE(sp_nr_tenants, sp_nr_tenants + 1);
	/* Not before those who wait. */
	tenant->vtime = due ? due->vtime : 0;
}

/* A new space is scanned when its tenant has been through the others, and it has taken shape. */
void sp_turns_join(struct sp_space *space, struct sp_tenant *tenant)
{
	list_add_tail(&space->turn, tenant->cursor ?: &tenant->spaces);
	if (sp_under_way && !tenant->cursor)
		tenant->cursor = space->in_turn ? &tenant->spaces : &space->turn;
	space->tenant = tenant;
	tenant->nr_spaces++;
	tenant->in_hand += space->in_turn;
	sp_queue(tenant);
}

static void sp_tenant_free(struct sp_tenant *tenant)
{
	list_del(&tenant->list);
	WRITE_ONCE(sp_nr_tenants, sp_nr_tenants - 1);
	kfree(tenant);
}

void sp_turns_leave(struct sp_space *space)
{
	struct sp_tenant *tenant = space->tenant;

	if (tenant->cursor == &space->turn)
		tenant->cursor = space->turn.next;
	list_del(&space->turn);
	space->tenant = NULL;
	tenant->in_hand -= space->in_turn;
	if (--tenant->nr_spaces) {
		if (tenant->cursor)
			sp_went_on(tenant);
		return;
	}
	sp_unqueue(tenant);
	sp_nr_due -= tenant->due;
	tenant->due = false;
	tenant->cursor = NULL;
	/* Else who comes and goes would pay for nothing. */
	if (!sp_tenant_is_held(tenant))
		sp_tenant_free(tenant);
}

/* The tenant has got a space of somebody's who was due. */
void sp_turns_owe(struct sp_tenant *tenant)
{
	sp_nr_due += !tenant->due;
	tenant->due = true;
	sp_queue(tenant);
}

void sp_turns_forgive(void)
{
	struct sp_tenant *tenant;

	list_for_each_entry(tenant, &sp_tenants, list) {
		WRITE_ONCE(tenant->paid_until, 0);
		sp_queue(tenant);
	}
}

void sp_turns_begin(void)
{
	struct sp_tenant *tenant, *next;

	sp_under_way = true;
	sp_due_ns = 0;
	sp_early_ns = 0;
	list_for_each_entry_safe(tenant, next, &sp_tenants, list) {
		if (!tenant->nr_spaces) {
			if (!sp_tenant_is_held(tenant))
				sp_tenant_free(tenant);
			continue;
		}
		tenant->due = true;
		tenant->vtime = 0;
		tenant->cursor = tenant->spaces.next;
		sp_nr_due++;
		sp_queue(tenant);
	}
}

/* Nobody has a space in hand. */
void sp_turns_end(void)
{
	struct sp_tenant *tenant;

	sp_under_way = false;
	sp_nr_due = 0;
	list_for_each_entry(tenant, &sp_tenants, list) {
		sp_unqueue(tenant);
		tenant->due = false;
		tenant->cursor = NULL;
		tenant->in_hand = 0;
	}
}

/* Queue those who have waited long enough. Is anybody left who is due? */
static bool sp_look_at_held(void)
{
	struct sp_tenant *tenant, *next;
	bool due = false;

	list_for_each_entry_safe(tenant, next, &sp_held, held) {
		if (sp_is_to_wait(tenant))
			due |= tenant->due;
		else
			sp_queue(tenant);
	}
	return due;
}

static struct sp_tenant *sp_next_tenant(void)
{
	struct sp_tenant *due, *early;
	bool due_held;

	if (!sp_nr_due)
		return NULL;
	due_held = sp_look_at_held();
	due = sp_first(&sp_due);
	early = sp_first(&sp_early);
	/* Else those who are due are in others' hands, and soon done. */
	if (!due)
		return due_held ? early : NULL;
	if (early && early->vtime < due->vtime && sp_early_ns <= sp_due_ns)
		return early;
	return due;
}

/* The next space, in hand of the caller, or NULL: there is none now, and no more at all if it is over. */
struct sp_space *sp_turns_take(void)
{
	struct sp_tenant *tenant = sp_next_tenant();
	struct sp_space *space;

	if (!tenant)
		return NULL;
	space = list_entry(tenant->cursor, struct sp_space, turn);
	space->in_turn = true;
	tenant->in_hand++;
	tenant->cursor = tenant->cursor->next;
	sp_queue(tenant);
	return space;
}

void sp_turns_done(struct sp_space *space)
{
	struct sp_tenant *tenant = space->tenant;

	if (!space->in_turn)
		return;
	space->in_turn = false;
	tenant->in_hand--;
	sp_went_on(tenant);
}

/* It is the first one to be taken when it is its tenant's turn again. */
void sp_turns_set_aside(struct sp_space *space)
{
	struct sp_tenant *tenant = space->tenant;

	list_move_tail(&space->turn, tenant->cursor);
	tenant->cursor = &space->turn;
	space->in_turn = false;
	tenant->in_hand--;
	sp_queue(tenant);
}

/* The space, which is in nobody's hand, is to be next of its tenant's. */
void sp_turns_hurry(struct sp_space *space)
{
	struct sp_tenant *tenant = space->tenant;

	if (!tenant->cursor || tenant->cursor == &space->turn)
		return;
	list_move_tail(&space->turn, tenant->cursor);
	tenant->cursor = &space->turn;
	sp_queue(tenant);
}

/* So much time was spent on so many pages of the tenant's, of which some were found to have something to do. */
void sp_turns_charge(struct sp_tenant *tenant, u64 ns, unsigned int looked, unsigned int found)
{
	u64 by_weight = div_u64(ns * SP_WEIGHT_DEFAULT, tenant->share.weight);
	bool early = !tenant->due, quiet = found * SP_QUIET_PART <= looked;

	tenant->scan_ns += ns;
	tenant->vtime += early && quiet ? by_weight * SP_QUIET_TIMES : by_weight;
	*(early ? &sp_early_ns : &sp_due_ns) += ns;
	if (tenant->share.percent)
		WRITE_ONCE(tenant->paid_until, max(tenant->paid_until, local_clock() - ns) +
			   div_u64(ns * 100, tenant->share.percent));
	sp_queue(tenant);
}

/* Has anybody who is due, and is not to wait, something left to take? */
bool sp_turns_waiting(void)
{
	return READ_ONCE(sp_due.rb_leftmost);
}

/* Has everybody been through? */
bool sp_turns_over(void)
{
	return !READ_ONCE(sp_nr_due);
}

/* Is there anybody for whom, or anything for which, a turn is to end early? */
bool sp_turns_shared(const struct sp_tenant *tenant)
{
	return READ_ONCE(sp_nr_tenants) > 1 || tenant->share.percent;
}

static bool sp_tenant_is_sound(const struct sp_tenant *tenant)
{
	bool waits = tenant->queue || !list_empty(&tenant->held);
	unsigned int nr = 0, in_turn = 0;
	const struct sp_space *space;

	list_for_each_entry(space, &tenant->spaces, turn) {
		nr++;
		in_turn += space->in_turn;
		if (space->tenant != tenant)
			return false;
	}
	return nr == tenant->nr_spaces && in_turn == tenant->in_hand &&
	       waits == sp_has_more(tenant) && !!tenant->cursor == (sp_under_way && nr);
}

/* For the checker: how many tenants, or counts of them, are not as they must be; @nr_spaces are registered. */
unsigned int sp_turns_faults(unsigned int nr_spaces)
{
	unsigned int faults = 0, nr = 0, nr_due = 0;
	const struct sp_tenant *tenant;

	list_for_each_entry(tenant, &sp_tenants, list) {
		faults += !sp_tenant_is_sound(tenant);
		nr++;
		nr_due += tenant->due;
		nr_spaces -= tenant->nr_spaces;
	}
	return faults + (nr != sp_nr_tenants) + (nr_due != sp_nr_due) + !!nr_spaces;
}

void sp_turns_destroy(void)
{
	struct sp_tenant *tenant, *next;

	list_for_each_entry_safe(tenant, next, &sp_tenants, list)
		sp_tenant_free(tenant);
}
