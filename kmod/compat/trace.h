/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sp_trace_NAME(): the event ksm:ksm_NAME of tracefs and perf. Where the kernel
 * has these events, its own are fired, so that whoever traces it sees what was
 * always seen; elsewhere they are ours (ksm_events.h).
 *
 * A module cannot patch a branch on a key of the kernel: whether anybody
 * listens is a load and a test.
 */
#ifndef SAMEPAGE_TRACE_H
#define SAMEPAGE_TRACE_H

#ifdef SP_HAVE_KSM_TRACE
#include <linux/tracepoint.h>
#include <trace/events/ksm.h>

enum sp_tracepoint {
#define TRACEPOINT(name, params, args) SP_TP_##name,
#include "tracepoints.def"
#undef TRACEPOINT
	SP_NR_TRACEPOINTS
};

extern struct tracepoint *sp_tracepoints[SP_NR_TRACEPOINTS];

static inline bool sp_traced(enum sp_tracepoint which)
{
	return rcu_access_pointer(sp_tracepoints[which]->funcs);
}

#define TRACEPOINT(name, params, args)				\
	void sp_fire_##name params;				\
	static inline void sp_trace_##name params		\
	{							\
		if (unlikely(sp_traced(SP_TP_##name)))		\
			sp_fire_##name args;			\
	}
#include "tracepoints.def"
#undef TRACEPOINT

#define sp_trace_on(name)	sp_traced(SP_TP_##name)
#else
#include "ksm_events.h"

#define sp_trace_on(name)	trace_ksm_##name##_enabled()

#define TRACEPOINT(name, params, args)				\
	static inline void sp_trace_##name params		\
	{							\
		trace_ksm_##name args;				\
	}
#include "tracepoints.def"
#undef TRACEPOINT
#endif

/* 0 or an errno; undone when the module goes. */
int sp_trace_init(void);

#endif
