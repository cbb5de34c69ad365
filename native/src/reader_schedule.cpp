#include "reader_schedule.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace stoker {
namespace {

// Enough to keep the depth with files of one request each, few enough for common limits of open files.
unsigned open_files_max(const ReadCall& call) {
  if (call.keys == nullptr) return 1;
  const std::size_t limit = std::clamp(2 * std::size_t{call.queue_depth}, std::size_t{4}, std::size_t{256});
  return static_cast<unsigned>(std::min(limit, std::max(call.files, std::size_t{1})));
}

}  // namespace

Opened look_at(int descriptor_or_error) {
  Opened answer;
  if (descriptor_or_error < 0) {
    answer.status = -descriptor_or_error;
    return answer;
  }
  struct stat facts;
  if (fstat(descriptor_or_error, &facts) != 0) {
    answer.status = errno;
  } else if (!S_ISREG(facts.st_mode)) {
    answer.status = kStatusNotRegular;
  } else {
    answer.descriptor = descriptor_or_error;
    answer.file_bytes = facts.st_size;
    return answer;
  }
  ::close(descriptor_or_error);
  return answer;
}

Schedule::Schedule(const ReadCall& call) : call_(call), file_count_(call.keys == nullptr ? 0 : call.files) {
  const unsigned limit = open_files_max(call);
  files_.resize(limit);
  line_.resize(limit);
  to_close_.reserve(limit);
  starved_.reserve(limit);
  for (unsigned slot = limit; slot-- > 0;) free_.push_back(slot);
  if (call.keys != nullptr) return;
  descriptors_.resize(call.files);
  free_.pop_back();
  open_ = 1;
  files_[0].last = call.range_count;
  line_up(0);
}

void Schedule::line_up(unsigned slot) {
  files_[slot].waits = true;
  line_[(line_first_ + line_count_++) % line_.size()] = slot;
}

Task Schedule::next(Piece* piece, unsigned* slot) {
  while (line_count_ > 0) {
    const unsigned front = line_[line_first_];
    OpenFile& file = files_[front];
    if (hand_out(&file, front, piece)) return Task::read;
    line_first_ = (line_first_ + 1) % line_.size();
    --line_count_;
    file.waits = false;
    if (file.under_way == 0) settle(file), to_close_.push_back(front);
  }
  if (!to_close_.empty()) {
    *slot = to_close_.back();
    to_close_.pop_back();
    if (files_[*slot].descriptor >= 0) return Task::close;
    closed(*slot);
    return next(piece, slot);
  }
  const bool again = !starved_.empty();
  if (free_.empty() || starving_ || (!again && next_file_ == file_count_)) return Task::none;
  *slot = free_.back();
  free_.pop_back();
  ++open_;
  begin_file(*slot, again ? starved_.back() : next_file_++);
  if (again) starved_.pop_back();
  return Task::open;
}

bool Schedule::next_piece(Piece* piece) {
  const unsigned front = line_[line_first_];
  return line_count_ > 0 && hand_out(&files_[front], front, piece);
}

void Schedule::begin_file(unsigned slot, std::size_t number) {
  OpenFile& file = files_[slot];
  file = OpenFile{};
  file.number = number;
  file.direct = (call_.flags & O_DIRECT) != 0;
  file.closings = closings_;
  const auto is_before = [this, number](std::size_t index) {
    return static_cast<std::size_t>(call_.range(index)[kRangeFile]) < number;
  };
  // Files are begun in order, but for those that found no descriptor: their ranges lie behind.
  while (next_range_ > 0 && !is_before(next_range_ - 1)) --next_range_;
  while (next_range_ < call_.range_count && is_before(next_range_)) ++next_range_;
  file.first = file.cursor = next_range_;
  while (next_range_ < call_.range_count &&
         static_cast<std::size_t>(call_.range(next_range_)[kRangeFile]) == number) {
    const std::int64_t* row = call_.range(next_range_);
    if (row[kRangeWanted] > 0) file.asked_from = std::min(file.asked_from, row[kRangeOffset]);
    file.asked_bytes += std::min(row[kRangeWanted], INT64_MAX / 2 - file.asked_bytes);
    ++next_range_;
  }
  file.last = next_range_;
}

void Schedule::opened(unsigned slot, const Opened& answer, std::int64_t started, std::int64_t now) {
  OpenFile& file = files_[slot];
  const bool others = open_ > 1;
  // Whoever held the descriptors when this one found none may have closed them since: then there is one now.
  const bool freed = file.closings != closings_;
  if ((answer.status == EMFILE || answer.status == ENFILE) && (others || freed)) {
    starving_ = others && !freed;
    starved_.push_back(file.number);
    free_.push_back(slot);
    --open_;
    return;
  }
  std::int64_t* done = call_.file_done(file.number);
  done[kFileStatus] = answer.status;
  done[kFileSize] = answer.file_bytes;
  done[kFileStarted] = started;
  done[kFileOpened] = now;
  file.descriptor = answer.descriptor;
  file.file_bytes = answer.file_bytes;
  if (answer.descriptor >= 0) {
    line_up(slot);
  } else {
    give_up(file, now);
    closed(slot);
  }
}

void Schedule::give_up(const OpenFile& file, std::int64_t now) {
  for (std::size_t index = file.first; index < file.last; ++index) {
    std::int64_t* done = call_.range_done(index);
    done[kDoneStatus] = kStatusNotTried;
    done[kDoneRead] = 0;
    done[kDoneCached] = -1;
    done[kDoneStarted] = done[kDoneEnded] = now;
  }
}

void Schedule::about_descriptor(std::size_t index, Piece* piece) {
  const Descriptor& known = descriptor(index);
  piece->descriptor = call_.descriptors[index];
  piece->direct = known.direct;
  piece->seekable = known.seekable;
  piece->file_bytes = known.file_bytes;
}

const Descriptor& Schedule::descriptor(std::size_t index) {
  Descriptor& known = descriptors_[index];
  if (known.known) return known;
  known.known = true;
  struct stat facts;
  if (fstat(call_.descriptors[index], &facts) == 0) {
    known.seekable = S_ISREG(facts.st_mode) || S_ISBLK(facts.st_mode);
    if (S_ISREG(facts.st_mode)) known.file_bytes = facts.st_size;
  }
  const int flags = fcntl(call_.descriptors[index], F_GETFL);
  known.direct = flags >= 0 && (flags & O_DIRECT) != 0;
  return known;
}

// While a range is under way its row says where it ends (first at its room, then where a request found less) and why:
// the end found nearest to the beginning counts, whatever order the answers come in.
bool Schedule::hand_out(OpenFile* file, unsigned slot, Piece* piece) {
  for (; file->cursor < file->last; ++file->cursor, file->at = 0) {
    const std::int64_t* row = call_.range(file->cursor);
    std::int64_t* done = call_.range_done(file->cursor);
    if (file->at == 0) {
      done[kDoneStatus] = 0;
      done[kDoneRead] = row[kRangeWanted] > 0 ? row[kRangeRoom] : 0;
      done[kDoneCached] = row[kRangeWanted] > 0 || !call_.residency ? -1 : 0;
      if (row[kRangeWanted] == 0) done[kDoneStarted] = done[kDoneEnded] = now_ns();
    }
    if (file->at >= done[kDoneRead]) continue;
    *piece = Piece{};
    piece->range = file->cursor;
    piece->file = slot;
    piece->descriptor = file->descriptor;
    piece->direct = file->direct;
    piece->file_bytes = file->file_bytes;
    if (call_.keys == nullptr) about_descriptor(static_cast<std::size_t>(row[kRangeFile]), piece);
    piece->first = file->at == 0;
    piece->whole = file->at == 0 && row[kRangeRoom] <= call_.request_bytes;
    piece->at = file->at;
    piece->until = std::min(row[kRangeRoom], file->at + call_.request_bytes);
    piece->wanted = row[kRangeWanted];
    piece->offset = row[kRangeOffset];
    piece->address = static_cast<std::uint64_t>(row[kRangeAddress]);
    if (piece->at >= piece->wanted && piece->file_bytes > 0 && piece->position() >= piece->file_bytes) {
      done[kDoneRead] = piece->at;  // room beyond the file's end
      done[kDoneStatus] = 0;
      continue;
    }
    file->at = piece->until;
    ++file->under_way;
    return true;
  }
  return false;
}

void Schedule::read(const Piece& piece, std::int64_t now) {
  std::int64_t* done = call_.range_done(piece.range);
  if (piece.stopped && piece.at < done[kDoneRead]) {
    done[kDoneRead] = piece.at;
    done[kDoneStatus] = piece.reason;
  }
  done[kDoneEnded] = now;
  OpenFile& file = files_[piece.file];
  if (--file.under_way == 0 && !file.waits) settle(file), to_close_.push_back(piece.file);
}

void Schedule::settle(const OpenFile& file) {
  for (std::size_t index = file.first; index < file.last; ++index) {
    std::int64_t* done = call_.range_done(index);
    if (done[kDoneStatus] > 0) {
      done[kDoneRead] = 0;
    } else if (done[kDoneRead] < call_.range(index)[kRangeWanted]) {
      done[kDoneStatus] = kStatusShort;
    }
  }
}

void Schedule::abandon() {
  if (call_.keys == nullptr) return;
  for (OpenFile& file : files_) {
    if (file.descriptor >= 0) ::close(file.descriptor);
    file.descriptor = -1;
  }
}

std::size_t Schedule::ranges_left() const {
  if (line_count_ == 0) return 0;
  const OpenFile& file = files_[line_[line_first_]];
  return file.last - file.cursor;
}

void Schedule::closed(unsigned slot) {
  files_[slot].descriptor = -1;
  free_.push_back(slot);
  --open_;
  ++closings_;
  starving_ = false;
}

}  // namespace stoker
