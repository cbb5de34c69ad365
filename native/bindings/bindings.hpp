// Each kernel's face to Python lies in a file of its own beside this one. They drop the GIL around the kernel.
#pragma once

#include <nanobind/nanobind.h>

void bind_arena(nanobind::module_& module);
void bind_short_ways(nanobind::module_& module);
void bind_check(nanobind::module_& module);
void bind_cpu(nanobind::module_& module);
void bind_delta(nanobind::module_& module);
void bind_replay(nanobind::module_& module);
void bind_rows(nanobind::module_& module);
void bind_unpack(nanobind::module_& module);
void bind_unpack_pages(nanobind::module_& module);
void bind_permute(nanobind::module_& module);
void bind_fill(nanobind::module_& module);
void bind_mapping(nanobind::module_& module);
void bind_writer(nanobind::module_& module);
void bind_reader(nanobind::module_& module);
void bind_wave(nanobind::module_& module);
void bind_short_waves(nanobind::module_& module);
