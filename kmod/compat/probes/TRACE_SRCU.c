// SPDX-License-Identifier: GPL-2.0-only
/* Listeners of a tracepoint are protected by SRCU, in every context */
#include <linux/tracepoint.h>
void probe(void);
void probe(void)
{
	guard(srcu_fast_notrace)(&tracepoint_srcu);
}
