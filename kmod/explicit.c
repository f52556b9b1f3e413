// SPDX-License-Identifier: GPL-2.0-only
/*
 * Domains that somebody chose: for a process, or for a cgroup and all below it.
 *
 * Whoever may change a process's memory may give it a number, which divides the domain of
 * that process's user, whoever this is when the scanner looks: no choice of theirs ever
 * joins what the policy "user" keeps apart. Only the numbers that an administrator gives
 * join users, and nobody else may alter these. What an administrator said of a process
 * counts before what was said of its cgroup, the nearest one above it, and this before
 * what anybody else said.
 *
 * The choice for a process belongs to its memory, and lives in its record (struct
 * sp_space), which is made for it if need be and stays as long as there is a choice. Fork
 * copies it before anybody can find the child's record. Exec drops it, since the program
 * may be another user's, and so do exit and unload, with the record.
 *
 * Nothing is unmerged here: the scanner does so when it comes by, as when a process becomes
 * another user's (sp_domain_settle()). So nobody can make it begin anew by choosing often.
 */
#include <linux/capability.h>
#include <linux/err.h>
#include <linux/mm.h>
#include <linux/ptrace.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>

#include "samepage.h"
#include "explicit.h"
#include "rules.h"
#include "why.h"

static SP_RULES(sp_numbers);

/* @name is that of the user's domain; make it that of the one which was chosen. Needs RCU. */
void sp_explicit_name(struct sp_space *space, struct task_struct *owner,
		      struct sp_domain_name *name)
{
	struct sp_choice choice = sp_registry_choice(space);

	if (choice.by != SP_CHOSEN_BY_ADMIN && sp_ruled(&sp_numbers, owner, &choice.name))
		choice.by = SP_CHOSEN_BY_ADMIN;
	/* As with the policy "user", under the same name: what stays so needs no unmerging. */
	name->by = choice.by ? SP_BY_EXPLICIT : SP_BY_USER;
	if (choice.by)
		name->chosen = choice.name;
	if (choice.by == SP_CHOSEN_BY_ADMIN) {
		name->within = NULL;
		name->who = SP_ADMINISTRATOR;
	}
}

/*
 * mmap_lock, for who registers @mm, and then sp_scan_lock, so that no unload passes by in
 * between. The wrong way round, hence without waiting: with sp_scan_lock held, nobody may
 * wait for a process that takes its time. 0 or -EINTR.
 */
static int sp_lock_to_choose(struct mm_struct *mm)
{
	while (!mmap_write_lock_killable(mm)) {
		if (down_read_trylock(&sp_scan_lock))
			return 0;
		mmap_write_unlock(mm);
		sp_scan_lock_shared();
		up_read(&sp_scan_lock);
	}
	return -EINTR;
}

static void sp_unlock_chosen(struct mm_struct *mm)
{
	up_read(&sp_scan_lock);
	mmap_write_unlock(mm);
}

/* A choice needs a record to live in. Between in-tree KSM and us there is none. */
static int sp_enter_to_choose(struct mm_struct *mm)
{
	if (!sp_scan_enabled() || READ_ONCE(sp_passthrough))
		return -EAGAIN;
	if (sp_registered(mm))
		return 0;
	return mm_flags_test(MMF_VM_MERGEABLE, mm) ? -EAGAIN : sp_enter(mm, NULL);
}

static int sp_choose_for_process(const struct samepage_domain *asked, bool set)
{
	bool admin = capable(CAP_SYS_ADMIN);
	struct sp_choice choice = { .name = asked->name };
	struct mm_struct *mm;
	int err;

	if (asked->id > INT_MAX)
		return -EINVAL;
	mm = sp_mm_of(asked->id, PTRACE_MODE_ATTACH_REALCREDS);
	if (IS_ERR(mm))
		return PTR_ERR(mm);
	if (set)
		choice.by = admin ? SP_CHOSEN_BY_ADMIN : SP_CHOSEN;
	err = sp_lock_to_choose(mm);
	if (!err) {
		err = set ? sp_enter_to_choose(mm) : 0;
		err = err ?: sp_registry_choose(mm, &choice, admin);
		sp_unlock_chosen(mm);
	}
	mmput(mm);
	return err;
}

/*
 * 0 or an errno: -EINVAL; -ESRCH, or -ENOENT for a cgroup, or where there is nothing to
 * clear; -EACCES or -EPERM; -EAGAIN while the module is being loaded or unloaded; -ENOMEM;
 * -EINTR.
 */
int sp_explicit_choose(const struct samepage_domain *asked, bool set)
{
	if (asked->reserved || (!set && asked->name))
		return -EINVAL;
	switch (asked->whose) {
	case SAMEPAGE_PROCESS:
		return sp_choose_for_process(asked, set);
	case SAMEPAGE_CGROUP:
		return set ? sp_rule_set(&sp_numbers, asked->id, asked->name) :
			     sp_rule_clear(&sp_numbers, asked->id);
	}
	return -EINVAL;
}

/* Whoever read rules has none any more. */
void sp_explicit_destroy(void)
{
	sp_rules_destroy(&sp_numbers);
}
