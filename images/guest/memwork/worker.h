/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef MEMWORK_WORKER_H
#define MEMWORK_WORKER_H

#include <stdint.h>

/* Greet the driver with our pid, then carry out its requests until it goes away. */
_Noreturn void work(int socket, uint32_t id);

#endif
