#include "stoker/mapping.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace stoker {

// What the signal handler reads: `begin` is 0 while the slot is free, and is written last and cleared first.
struct MappingSlot {
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<MappingWatch*> watch{nullptr};
  std::atomic<std::int64_t> tag{0};

  void tear() {
    std::int64_t none = MappingWatch::kNone;
    watch.load(std::memory_order_relaxed)
        ->torn_tag_.compare_exchange_strong(none, tag.load(std::memory_order_relaxed), std::memory_order_acq_rel);
  }
};

namespace {

constexpr std::size_t kSlots = 4096;
MappingSlot slots[kSlots];
std::atomic<std::size_t> slots_used{0};  // no slot beyond was ever in use
std::atomic<std::size_t> held{0};
std::mutex claiming;
std::uintptr_t page_bytes = 0;
struct sigaction before_us;
std::atomic<bool> passed_on{false};

// Replaces what is left of the mapping by zeros. Called in a signal handler: mmap is a bare system call there.
bool patch(std::uintptr_t address) {
  const std::size_t used = slots_used.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < used; ++i) {
    const std::uintptr_t begin = slots[i].begin.load(std::memory_order_acquire);
    const std::uintptr_t end = slots[i].end.load(std::memory_order_relaxed);
    if (begin == 0 || address < begin || address >= end) continue;
    const std::uintptr_t page = address & ~(page_bytes - 1);
    void* const zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros == MAP_FAILED) return false;
    slots[i].tear();
    return true;
  }
  return false;
}

// Somebody else's: the handler that was there before us gets it when the access is tried again; the second time,
// nobody does. Without that two handlers that restore each other would never end.
void pass_on(int number, const siginfo_t* info) {
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  sigaction(number, passed_on.exchange(true) ? &plain : &before_us, nullptr);
  if (info->si_code <= 0) raise(number);  // sent, not met: nothing will try again
}

void on_bus_error(int number, siginfo_t* info, void*) {
  const int kept = errno;
  if (info->si_code <= 0 || !patch(reinterpret_cast<std::uintptr_t>(info->si_addr))) pass_on(number, info);
  errno = kept;
}

// Makes sure that the handler is ours: whoever set another one since (faulthandler, a runtime) comes after us.
bool guarded() {
  struct sigaction now {};
  if (sigaction(SIGBUS, nullptr, &now) != 0) return false;
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_bus_error) return true;
  struct sigaction ours {};
  ours.sa_sigaction = on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&ours.sa_mask);
  before_us = now;
  passed_on.store(false);
  return sigaction(SIGBUS, &ours, nullptr) == 0;
}

int claim(std::uintptr_t begin, std::uintptr_t end, MappingWatch* watch, std::int64_t tag) {
  for (std::size_t i = 0; i < kSlots; ++i) {
    if (slots[i].begin.load(std::memory_order_relaxed) != 0) continue;
    slots[i].watch.store(watch, std::memory_order_relaxed);
    slots[i].tag.store(tag, std::memory_order_relaxed);
    slots[i].end.store(end, std::memory_order_relaxed);
    slots[i].begin.store(begin, std::memory_order_release);
    if (i >= slots_used.load(std::memory_order_relaxed)) slots_used.store(i + 1, std::memory_order_release);
    return static_cast<int>(i);
  }
  return -1;
}

// Old kernels cannot make pages ready at once: then each is met when it is read. Any other failure means a copy.
bool ready(void* base, std::size_t bytes) { return madvise(base, bytes, MADV_POPULATE_READ) == 0 || errno == EINVAL; }

}  // namespace

std::unique_ptr<Mapping> Mapping::make(int file, std::uint64_t offset_bytes, std::size_t size_bytes,
                                       std::shared_ptr<MappingWatch> watch, std::int64_t tag) {
  struct stat status {};
  if (size_bytes == 0 || offset_bytes > INT64_MAX || fstat(file, &status) != 0 || status.st_size < 0) return nullptr;
  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
  if (offset_bytes > file_bytes || size_bytes > file_bytes - offset_bytes) return nullptr;
  std::unique_ptr<Mapping> made(new Mapping());
  {
    const std::lock_guard<std::mutex> lock(claiming);
    if (page_bytes == 0) page_bytes = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    if (!guarded()) return nullptr;
  }
  made->skew_bytes_ = offset_bytes & (page_bytes - 1);
  made->size_bytes_ = size_bytes;
  const std::size_t mapped = (made->skew_bytes_ + size_bytes + page_bytes - 1) & ~(page_bytes - 1);
  void* const base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file,
                          static_cast<off_t>(offset_bytes - made->skew_bytes_));
  if (base == MAP_FAILED) return nullptr;
  made->base_ = static_cast<std::uint8_t*>(base);
  made->mapped_bytes_ = mapped;
  if (!ready(base, mapped)) return nullptr;
  const auto begin = reinterpret_cast<std::uintptr_t>(base);
  const std::lock_guard<std::mutex> lock(claiming);
  made->slot_ = claim(begin, begin + mapped, watch.get(), tag);
  if (made->slot_ < 0) return nullptr;
  made->watch_ = std::move(watch);
  held.fetch_add(1, std::memory_order_relaxed);
  return made;
}

Mapping::~Mapping() {
  if (slot_ >= 0) {
    slots[slot_].begin.store(0, std::memory_order_release);
    held.fetch_sub(1, std::memory_order_relaxed);
  }
  if (base_ != nullptr) munmap(base_, mapped_bytes_);
}

std::size_t mappings_held() { return held.load(std::memory_order_relaxed); }

}  // namespace stoker
