// SPDX-License-Identifier: GPL-2.0-only
/* The kernel has ksm events */
#include <linux/tracepoint.h>
#include <trace/events/ksm.h>
bool probe(void);
bool probe(void)
{
	return trace_ksm_advisor_enabled();
}
