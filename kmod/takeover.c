// SPDX-License-Identifier: GPL-2.0-only
/*
 * Taking over from mm/ksm.c and handing back.
 *
 * Every public function of mm/ksm.c is livepatched. The livepatch core moves
 * task by task, so for a while both sets of functions run; nothing is merged by
 * either then. When all tasks run ours, address spaces that in-tree KSM knows
 * are moved here, and scanning begins. Going back is the reverse: stop, unmerge
 * everything, move all address spaces back, unpatch.
 *
 * An address space is moved with its mmap_lock held for writing and a user
 * reference: neither madvise(), prctl(), fork nor exit can meet it half-way.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/livepatch.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/sched/task.h>

#include "samepage.h"
#include "control.h"

bool sp_passthrough;
static unsigned long sp_run_to_resume;	/* where an unload is called off */

/* Call @visit once or more for every address space of a user process. */
static void sp_visit_mms(void (*visit)(struct mm_struct *mm))
{
	int nr = 1;

	for (;; nr++) {
		struct task_struct *task = NULL;
		struct mm_struct *mm;
		struct pid *pid;

		rcu_read_lock();
		pid = find_ge_pid(nr, &init_pid_ns);
		if (pid) {
			nr = pid_nr(pid);
			task = pid_task(pid, PIDTYPE_PID);
			if (task)
				get_task_struct(task);
		}
		rcu_read_unlock();
		if (!pid)
			return;
		if (!task)
			continue;
		mm = get_task_mm(task);
		put_task_struct(task);
		if (mm) {
			visit(mm);
			/* Tearing down what died meanwhile is not for us to wait for. */
			mmput_async(mm);
		}
		cond_resched();
	}
}

/* Move an address space here that is registered with in-tree KSM. */
static void sp_adopt(struct mm_struct *mm)
{
	bool any;

	if (!mm_flags_test(MMF_VM_MERGEABLE, mm))
		return;
	mmap_write_lock(mm);
	if (mm_flags_test(MMF_VM_MERGEABLE, mm) && !sp_registered(mm)) {
		any = mm_flags_test(MMF_VM_MERGE_ANY, mm);
		sp_original_exit(mm);	/* clears both flags */
		if (any)
			mm_flags_set(MMF_VM_MERGE_ANY, mm);
		if (sp_enter(mm, NULL))
			pr_warn("no memory to register a process: it is not merged\n");
	}
	mmap_write_unlock(mm);
}

/* Anything that came by way of a fork that was under way is adopted later. */
void sp_adopt_all(void)
{
	sp_visit_mms(sp_adopt);
}

static void sp_restore_files(void)
{
	if (sysfs_create_group(sp_kernel.mm_kobj, sp_kernel.ksm_attr_group))
		pr_err("cannot restore /sys/kernel/mm/ksm\n");
}

/* The in-tree files first: nobody may start in-tree KSM any more. */
static int sp_pre_patch(struct klp_object *object)
{
	int err;

	sysfs_remove_group(sp_kernel.mm_kobj, sp_kernel.ksm_attr_group);
	err = sp_intree_quiet();
	if (err)
		goto files;
	sp_intree_inherit();
	err = sp_sysfs_init();
	if (!err)
		return 0;
	sp_intree_resume();
files:
	sp_restore_files();
	return err;
}

/* Also comes when an unload is called off midway. */
static void sp_post_patch(struct klp_object *object)
{
	if (sp_passthrough) {
		WRITE_ONCE(sp_passthrough, false);
		sp_registry_insert_ahead(false);
		WRITE_ONCE(sp_run, sp_run_to_resume);
	}
	sp_adopt_all();
	sp_scan_enable(true);
	pr_info("took over from in-tree KSM\n");
}

static void sp_unmerge_visit(struct mm_struct *mm)
{
	mmap_read_lock(mm);
	sp_unmerge_mm(mm);
	mmap_read_unlock(mm);
}

/*
 * Until no merged page is left anywhere. Out of memory and pages under
 * migration pass; a fork may have left merged pages in a process that could
 * not be registered, so all processes are searched where the registered ones
 * are not all.
 */
static void sp_unmerge_everything(void)
{
	bool done = false;

	sp_scan_lock_all();
	WRITE_ONCE(sp_run, SP_RUN_UNMERGE);
	sp_registry_insert_ahead(true);
	sp_unmerge_ignore_signals(true);
	while (!done) {
		done = !sp_unmerge_registered() && sp_stable_release_all();
		if (!done) {
			sp_visit_mms(sp_unmerge_visit);
			msleep(20);
		}
	}
	sp_unmerge_ignore_signals(false);
	up_write(&sp_scan_lock);
}

/* Register @space's address space with in-tree KSM, as it was before. */
static void sp_return(struct sp_space *space)
{
	struct mm_struct *mm = space->mm;
	bool any;

	if (!mmget_not_zero(mm)) {
		sp_registry_done(space, SP_DROP_EXITED);
		return;
	}
	mmap_write_lock(mm);
	any = mm_flags_test(MMF_VM_MERGE_ANY, mm);
	sp_registry_done(space, SP_DROP_IDLE);
	while (sp_original_enter(mm))
		msleep(20);	/* out of memory */
	sp_return_merge_any(mm, any);
	mmap_write_unlock(mm);
	mmput_async(mm);
}

static void sp_return_all(void)
{
	struct sp_space *space;

	WRITE_ONCE(sp_passthrough, true);
	down_write(&sp_scan_lock);
	sp_registry_begin();
	while ((space = sp_registry_take()))
		sp_return(space);
	sp_registry_end();
	up_write(&sp_scan_lock);
}

static void sp_pre_unpatch(struct klp_object *object)
{
	sp_run_to_resume = READ_ONCE(sp_run);
	sp_scan_enable(false);
	sp_unmerge_everything();
	sp_return_all();
}

static void sp_post_unpatch(struct klp_object *object)
{
	/* A transition that was called off midway comes straight here. */
	sp_return_all();
	sp_sysfs_exit();
	sp_restore_files();
	sp_intree_resume();
	pr_info("handed back to in-tree KSM\n");
}

/* Each has the type of the function that it stands for. */
#define FUNCTION(name, ours) static_assert(__same_type(name, ours));
#include "compat/functions.def"
#undef FUNCTION

#define FUNCTION(name, ours) { .old_name = #name, .new_func = ours },
static struct klp_func sp_functions[] = {
#include "compat/functions.def"
	{ }
};

static struct klp_object sp_objects[] = {
	{
		.funcs = sp_functions,	/* of vmlinux */
		.callbacks = {
			.pre_patch = sp_pre_patch,
			.post_patch = sp_post_patch,
			.pre_unpatch = sp_pre_unpatch,
			.post_unpatch = sp_post_unpatch,
		},
	},
	{ }
};

/*
 * A livepatch that replaces all others would remove this one without its
 * callbacks, and leave merged pages behind that point to our nodes. It is
 * refused unless it says that it knows this state.
 */
static struct klp_state sp_states[] = {
	{ .id = 0x53414d45, .version = 1 },
	{ }
};

static struct klp_patch sp_patch = {
	.mod = THIS_MODULE,
	.objs = sp_objects,
	.states = sp_states,
};

/*
 * Patch; 0, or an errno with everything as it was. Scanning starts once all
 * tasks are patched, which may be after the return.
 */
int sp_takeover(void)
{
	int err = klp_enable_patch(&sp_patch);

	if (err)
		pr_err("cannot livepatch mm/ksm.c (%d): is kernel.ftrace_enabled off, or another livepatch in transition?\n",
		       err);
	return err;
}
