/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef MEMWORK_DRIVER_H
#define MEMWORK_DRIVER_H

/* Serve requests on stdin until it ends, then end all workers. */
int drive(void);

#endif
