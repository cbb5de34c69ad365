#include "bindings.hpp"

NB_MODULE(_native, module) {
  module.doc() = "Native kernels of stoker; stoker.kernels is their typed face.";
  bind_arena(module);
  bind_short_ways(module);
  bind_check(module);
  bind_cpu(module);
  bind_delta(module);
  bind_replay(module);
  bind_rows(module);
  bind_unpack(module);
  bind_unpack_pages(module);
  bind_permute(module);
  bind_fill(module);
  bind_mapping(module);
  bind_writer(module);
  bind_reader(module);
  bind_wave(module);
  bind_short_waves(module);
}
