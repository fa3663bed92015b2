#include "lib/exec/tasks.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "lib/exec/task_queues.h"
#include "lib/io/direct.h"
#include "lib/io/input.h"

using namespace uckpt;

namespace {

// A transposed matrix in one file, and then flat vectors; every tensor in a file of its own, at odd offsets.
struct Example {
  Catalog catalog;
  TargetLayout layout;
  plan::Plan plan;

  explicit Example(const std::vector<Shape>& shapes, bool transposed) {
    for (const Shape& shape : shapes) {
      const FileId file = catalog.add_file(
          std::make_shared<MemorySource>("f", Bytes(static_cast<size_t>(4 * numel_of(shape)))));
      Tensor t{};
      t.dtype = DType::kF32;
      t.shape = shape;
      const uint32_t mark = catalog.piece_mark();
      const std::vector<int64_t> strides =
          transposed ? std::vector<int64_t>{1, shape[0]} : std::vector<int64_t>{shape[1], 1};
      catalog.add_whole(file, kNoRecord, 0, shape, strides);
      t.pieces = catalog.pieces_since(mark);
      const auto number = static_cast<uint32_t>(catalog.tensors.size());
      catalog.tensors.push_back(t);
      layout.files.push_back({"f" + std::to_string(number), 0, {}, {}});
      const uint32_t shard = layout.add_whole_shard(catalog, number);
      layout.holes.push_back({shard, number, 100 + 4 * number, 0, numel_of(shape), DType::kF32});
      layout.files.back().size = 100 + 4 * number + 4 * numel_of(shape);
    }
    plan = plan::make_plan(catalog, layout, {});
  }
};

}  // namespace

TEST_CASE("tasks cover every hole once and go on at pages of the file") {
  const Example e({{700, 1000}, {3, 5}, {512, 2048}}, false);
  const exec::Buffers buffers{2, 1 << 20, 8 << 20, 1 << 20, 2};
  const auto tasks = exec::cut_tasks(e.catalog, e.layout, e.plan, buffers);
  std::vector<int64_t> next(3, 0);
  for (const exec::Task& t : tasks) {
    REQUIRE(t.first_hole == t.last_hole);
    CHECK(t.begin == next[t.first_hole]);
    CHECK(t.end - t.begin <= (1 << 20) / 4);
    if (t.begin > 0) CHECK((e.layout.holes[t.first_hole].offset + 4 * t.begin) % kPageBytes == 0);
    next[t.first_hole] = t.end;
  }
  CHECK(next == std::vector<int64_t>{700000, 15, 512 * 2048});
  CHECK(exec::widest_range(e.layout, e.plan) == 0);
}

TEST_CASE("tasks of a transpose are wide enough to read 256 bytes at a time, within the budget") {
  const Example e({{4096, 8192}}, true);  // rows of 32 KiB: 64 of them
  CHECK(exec::widest_range(e.layout, e.plan) == 64 * 32768);
  for (const int64_t most : {int64_t{1} << 20, int64_t{8} << 20}) {
    const auto tasks = exec::cut_tasks(e.catalog, e.layout, e.plan, {2, 1 << 20, most, 1 << 20, 2});
    CHECK((tasks[1].end - tasks[1].begin) * 4 == std::min<int64_t>(most, 64 * 32768));
  }
  const Example narrow({{8, 100000}}, true);  // columns of 32 bytes: close together
  CHECK(exec::widest_range(narrow.layout, narrow.plan) == 0);
}

TEST_CASE("each worker writes a file of its own, as long as there is one") {
  const Example e({{512, 1024}, {512, 1024}, {512, 2048}}, false);
  const auto tasks = exec::cut_tasks(e.catalog, e.layout, e.plan, {2, 1 << 20, 1 << 20, 1 << 20, 2});
  REQUIRE(tasks.size() == 11);  // 3, 3 and 5 of them
  std::vector<bool> done(13);   // two more: reads of the input alone
  uint32_t a = exec::TaskQueues::kNoQueue, b = a;
  exec::TaskQueues queues(e.layout, tasks, done);
  REQUIRE(queues.size() == 13);
  std::vector<uint32_t> of_a, of_b;
  of_a.push_back(queues.next(a));
  for (int turn = 0; turn < 3; ++turn) of_b.push_back(queues.next(b));
  for (int turn = 0; turn < 8; ++turn) of_a.push_back(queues.next(a));
  of_b.push_back(queues.next(b));
  CHECK(of_a == std::vector<uint32_t>{6, 7, 8, 9, 10, 3, 4, 5, 11});
  CHECK(of_b == std::vector<uint32_t>{0, 1, 2, 12});

  done[1] = done[11] = true;
  a = b = exec::TaskQueues::kNoQueue;
  exec::TaskQueues open(e.layout, tasks, done);
  REQUIRE(open.size() == 11);
  of_a.clear(), of_b.clear();
  for (int turn = 0; turn < 2; ++turn) of_a.push_back(open.next(a));
  for (int turn = 0; turn < 8; ++turn) of_b.push_back(open.next(b));
  CHECK(of_a == std::vector<uint32_t>{6, 7});
  CHECK(of_b == std::vector<uint32_t>{3, 4, 5, 0, 2, 12, 8, 9});  // the last two of the other's file
  CHECK(open.next(a) == 10);
}

TEST_CASE("workers at once do every task once") {
  const Example e(std::vector<Shape>(300, {16, 16}), false);
  std::vector<exec::Task> tasks;
  for (uint32_t h = 0; h < 300; ++h)
    for (int64_t at = 0; at < h % 7; ++at) tasks.push_back({h, h, at, at + 1});
  const std::vector<bool> done(tasks.size());
  exec::TaskQueues queues(e.layout, tasks, done);
  std::vector<std::atomic<int>> times(tasks.size());
  std::atomic<size_t> taken{0};
  {
    std::vector<std::jthread> workers;
    for (int w = 0; w < 4; ++w)
      workers.emplace_back([&] {
        for (uint32_t queue = exec::TaskQueues::kNoQueue; taken++ < times.size();)
          ++times[queues.next(queue)];
      });
  }
  CHECK(std::ranges::all_of(times, [](const std::atomic<int>& t) { return t == 1; }));
}

TEST_CASE("buffers get what catalog and plan leave of the budget") {
  const Example e({{64, 64}}, false);
  exec::Budget budget = exec::budget_for(e.catalog, e.layout, e.plan);
  CHECK(budget.copies == 2);
  CHECK(budget.held > 0);
  budget.threads = 4;
  for (const int64_t mib : {20, 64, 1024}) {
    budget.max_mem = mib << 20;
    CHECK(exec::size_buffers(budget).total() + budget.held <= budget.max_mem);
  }
  budget.max_mem = budget.held;
  CHECK_THROWS_AS(exec::size_buffers(budget), Error);
}
