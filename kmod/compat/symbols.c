// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reaching functions that the kernel does not export.
 *
 * Each is a static call behind a local function of the kernel's own name, so
 * that inline functions of the kernel's headers link unchanged. A static call
 * is patched to a direct call: with CONFIG_X86_KERNEL_IBT an indirect call to a
 * function that has lost its ENDBR would fault.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kprobes.h>
#include <asm/ibt.h>
#include "compat.h"

#define SP_LIST(...) __VA_ARGS__
#define SHIM(ret, name, params, args)				\
	DEFINE_STATIC_CALL_NULL(sp_shim_##name, name);		\
	ret name params						\
	{							\
		return static_call(sp_shim_##name) args;	\
	}
#define SHIM_VOID(name, params, args)				\
	DEFINE_STATIC_CALL_NULL(sp_shim_##name, name);		\
	void name params					\
	{							\
		static_call(sp_shim_##name) args;		\
	}
#include "symbols.def"
#undef SHIM
#undef SHIM_VOID

struct sp_shim {
	const char *name;
	struct static_call_key *key;
	void *tramp;
};

#define SHIM_ENTRY(name) {				\
	#name,						\
	&STATIC_CALL_KEY(sp_shim_##name),		\
	STATIC_CALL_TRAMP_ADDR(sp_shim_##name),		\
},
#define SHIM(ret, name, params, args) SHIM_ENTRY(name)
#define SHIM_VOID(name, params, args) SHIM_ENTRY(name)
static const struct sp_shim sp_shims[] = {
#include "symbols.def"
};

struct sp_kernel_data sp_kernel;

DEFINE_STATIC_CALL_NULL(sp_lookup, sp_kallsyms_lookup_name);
DEFINE_STATIC_CALL_NULL(sp_enter_original, __ksm_enter);
DEFINE_STATIC_CALL_NULL(sp_exit_original, __ksm_exit);

int sp_original_enter(struct mm_struct *mm)
{
	return static_call(sp_enter_original)(mm);
}

void sp_original_exit(struct mm_struct *mm)
{
	static_call(sp_exit_original)(mm);
}

void *sp_lookup(const char *name)
{
	void *found = (void *)static_call(sp_lookup)(name);

	if (!found)
		pr_err("this kernel has no symbol %s: cannot run here\n", name);
	return found;
}

/* kallsyms_lookup_name() is not exported; a kprobe tells where it is. */
static int sp_find_lookup(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	int err = register_kprobe(&probe);

	if (err) {
		pr_err("cannot place a kprobe (%d): is CONFIG_KPROBES off or the kernel locked down?\n",
		       err);
		return err;
	}
	__static_call_update(&STATIC_CALL_KEY(sp_lookup),
			     STATIC_CALL_TRAMP_ADDR(sp_lookup), probe.addr);
	unregister_kprobe(&probe);
	return 0;
}

/* Behind ENDBR (or what replaced it) and the fentry call lies the original. */
static void *sp_past_fentry(void *function)
{
	if (__is_endbr(*(u32 *)function))
		function += 4;
	return function + MCOUNT_INSN_SIZE;
}

#ifndef SP_HAVE_KSM_MERGE_ANY
DEFINE_STATIC_CALL_NULL(sp_task_prctl, security_task_prctl);
DEFINE_STATIC_CALL_NULL(sp_new_exec, begin_new_exec);
DEFINE_STATIC_CALL_NULL(sp_mmap_event, perf_event_mmap);

int sp_original_task_prctl(int option, unsigned long arg2, unsigned long arg3,
			   unsigned long arg4, unsigned long arg5)
{
	return static_call(sp_task_prctl)(option, arg2, arg3, arg4, arg5);
}

int sp_original_begin_new_exec(struct linux_binprm *bprm)
{
	return static_call(sp_new_exec)(bprm);
}

void sp_original_mmap_event(struct vm_area_struct *vma)
{
	static_call(sp_mmap_event)(vma);
}

static int sp_find_prctl(void)
{
	void *task_prctl = sp_lookup("security_task_prctl");
	void *new_exec = sp_lookup("begin_new_exec");
	void *mmap_event = sp_lookup("perf_event_mmap");

	if (!task_prctl || !new_exec || !mmap_event)
		return -ENOENT;
	__static_call_update(&STATIC_CALL_KEY(sp_task_prctl),
			     STATIC_CALL_TRAMP_ADDR(sp_task_prctl),
			     sp_past_fentry(task_prctl));
	__static_call_update(&STATIC_CALL_KEY(sp_new_exec),
			     STATIC_CALL_TRAMP_ADDR(sp_new_exec),
			     sp_past_fentry(new_exec));
	__static_call_update(&STATIC_CALL_KEY(sp_mmap_event),
			     STATIC_CALL_TRAMP_ADDR(sp_mmap_event),
			     sp_past_fentry(mmap_event));
	return 0;
}
#else
static int sp_find_prctl(void)
{
	return 0;
}
#endif

static int sp_find_originals(void)
{
	void *enter = sp_lookup("__ksm_enter");
	void *exit = sp_lookup("__ksm_exit");

	if (!enter || !exit)
		return -ENOENT;
	__static_call_update(&STATIC_CALL_KEY(sp_enter_original),
			     STATIC_CALL_TRAMP_ADDR(sp_enter_original),
			     sp_past_fentry(enter));
	__static_call_update(&STATIC_CALL_KEY(sp_exit_original),
			     STATIC_CALL_TRAMP_ADDR(sp_exit_original),
			     sp_past_fentry(exit));
	return 0;
}

static int sp_find_data(void)
{
	struct kobject **mm_kobj = sp_lookup("mm_kobj");

	sp_kernel.ksm_attr_group = sp_lookup("ksm_attr_group");
	if (!mm_kobj || !sp_kernel.ksm_attr_group)
		return -ENOENT;
#ifdef SP_HAVE_KSM_ZERO_PAGES
	sp_kernel.ksm_zero_pages = sp_lookup("ksm_zero_pages");
	if (!sp_kernel.ksm_zero_pages)
		return -ENOENT;
#endif
	sp_kernel.mm_kobj = *mm_kobj;
	return 0;
}

int sp_symbols_resolve(void)
{
	int err = sp_find_lookup();
	size_t i;

	if (err)
		return err;
	for (i = 0; i < ARRAY_SIZE(sp_shims); i++) {
		void *found = sp_lookup(sp_shims[i].name);

		if (!found)
			return -ENOENT;
		__static_call_update(sp_shims[i].key, sp_shims[i].tramp, found);
	}
	return sp_find_originals() ?: sp_find_prctl() ?: sp_find_data() ?: sp_trace_init();
}
