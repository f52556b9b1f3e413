// SPDX-License-Identifier: GPL-2.0-only
/* Firing the kernel's ksm events, or having such events where it has none. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/trace_events.h>

#include "compat.h"

#ifdef SP_HAVE_KSM_TRACE
struct tracepoint *sp_tracepoints[SP_NR_TRACEPOINTS];

/* What keeps a listener that is being removed until nobody calls it any more. */
#ifdef SP_HAVE_TRACE_SRCU
#define SP_TRACE_GUARD() guard(srcu_fast_notrace)(&tracepoint_srcu)
#else
#define SP_TRACE_GUARD() guard(preempt_notrace)()
#endif

#define SP_LIST(...) __VA_ARGS__
#define TRACEPOINT(name, params, args)				\
	void sp_fire_##name params				\
	{							\
		SP_TRACE_GUARD();				\
		__traceiter_ksm_##name(NULL, SP_LIST args);	\
	}
#include "tracepoints.def"
#undef TRACEPOINT

int sp_trace_init(void)
{
	static const char * const names[SP_NR_TRACEPOINTS] = {
#define TRACEPOINT(name, params, args) "__tracepoint_ksm_" #name,
#include "tracepoints.def"
#undef TRACEPOINT
	};
	unsigned int i;

	for (i = 0; i < SP_NR_TRACEPOINTS; i++) {
		sp_tracepoints[i] = sp_lookup(names[i]);
		if (!sp_tracepoints[i])
			return -ENOENT;
	}
	return 0;
}
#else
/*
 * The kernel makes no event of a module that is a livepatch (until Linux 6.3),
 * and says so in its log. That caution is for modules of another kernel's
 * headers: ours are made here as the kernel does it for other modules, and with
 * those it takes them away when the module goes.
 */
int sp_trace_init(void)
{
	struct mutex *event_mutex = sp_lookup("event_mutex");
	unsigned int i;
	int err = 0;

	if (!event_mutex)
		return -ENOENT;
	mutex_lock(event_mutex);
	for (i = 0; i < THIS_MODULE->num_trace_events && !err; i++) {
		struct trace_event_call *call = THIS_MODULE->trace_events[i];

		if (call->module)
			break;		/* the kernel made them */
		err = trace_add_event_call(call);
		if (err > 0)
			err = 0;
		if (!err)
			call->module = THIS_MODULE;
	}
	mutex_unlock(event_mutex);
	return err;
}
#endif
