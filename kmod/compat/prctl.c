// SPDX-License-Identifier: GPL-2.0-only
/*
 * prctl(PR_SET_MEMORY_MERGE) for kernels without it, with the meaning that it
 * has on newer ones: a process has all of its memory merged, mappings to come
 * included, and so have its children, over exec, too.
 *
 * The system call asks the security module first, which is where we come in; new
 * mappings and a new program are heard of where perf hears of them.
 */
#include "../samepage.h"

#ifndef SP_HAVE_KSM_MERGE_ANY
#define SP_PR_SET_MEMORY_MERGE	67
#define SP_PR_GET_MEMORY_MERGE	68

static int sp_set_memory_merge(struct mm_struct *mm, bool on)
{
	int err;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	err = on ? sp_hook_enable_merge_any(mm) : sp_hook_disable_merge_any(mm);
	mmap_write_unlock(mm);
	return err;
}

int sp_hook_task_prctl(int option, unsigned long arg2, unsigned long arg3,
		       unsigned long arg4, unsigned long arg5)
{
	bool ours = current->mm && !READ_ONCE(sp_passthrough);

	if (ours && option == SP_PR_SET_MEMORY_MERGE) {
		if (arg3 || arg4 || arg5)
			return -EINVAL;
		return sp_set_memory_merge(current->mm, arg2);
	}
	if (ours && option == SP_PR_GET_MEMORY_MERGE) {
		if (arg2 || arg3 || arg4 || arg5)
			return -EINVAL;
		return mm_flags_test(MMF_VM_MERGE_ANY, current->mm);
	}
	return sp_original_task_prctl(option, arg2, arg3, arg4, arg5);
}

/* The new program inherits it. Its mappings are yet to come, but for the stack. */
int sp_hook_begin_new_exec(struct linux_binprm *bprm)
{
	bool any = current->mm && mm_flags_test(MMF_VM_MERGE_ANY, current->mm);
	int err = sp_original_begin_new_exec(bprm);
	struct mm_struct *mm = current->mm;

	if (err || !any || READ_ONCE(sp_passthrough))
		return err;
	mmap_write_lock(mm);
	/* Without memory, the program is not merged, but runs. */
	if (!sp_enter(mm, NULL))
		mm_flags_set(MMF_VM_MERGE_ANY, mm);
	mmap_write_unlock(mm);
	return 0;
}

/* Comes for each new mapping, with mmap_lock held for writing. */
void sp_hook_mmap_event(struct vm_area_struct *vma)
{
	if (!READ_ONCE(sp_passthrough))
		sp_hook_add_vma(vma);
	sp_original_mmap_event(vma);
}
#endif
