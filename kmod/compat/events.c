// SPDX-License-Identifier: GPL-2.0-only
/* The code of our own ksm events, where the kernel has none. */
#include "compat.h"

#ifndef SP_HAVE_KSM_TRACE
#define CREATE_TRACE_POINTS
#include "ksm_events.h"
#endif
