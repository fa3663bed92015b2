// What sanitizers ask of the code under them.
#pragma once

#if defined(__has_feature)
#define UCKPT_HAS_SANITIZER(name) __has_feature(name)  // clang
#else
#define UCKPT_HAS_SANITIZER(name) 0
#endif

#if defined(__clang__) && __clang_major__ < 18 && UCKPT_HAS_SANITIZER(address_sanitizer)
#define UCKPT_LOCK_ASAN_HEAP 1
namespace __lsan {
void LockAllocator();
void UnlockAllocator();
}  // namespace __lsan
namespace __sanitizer {
void StackDepotLockAll();
void StackDepotUnlockAll();
}  // namespace __sanitizer
#endif

namespace uckpt {

// Is this a build with a sanitizer whose shadow memory takes terabytes of address space?
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // gcc
inline constexpr bool kSanitized = true;
#elif UCKPT_HAS_SANITIZER(address_sanitizer) || UCKPT_HAS_SANITIZER(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// Held across fork(), by parent and child. The C library's heap is whole in the child whatever other threads
// were doing; AddressSanitizer's is so only since LLVM 18: before, a lock of its allocator that another
// thread held stays locked in the child for good.
class HeapAcrossFork {
 public:
#ifdef UCKPT_LOCK_ASAN_HEAP
  HeapAcrossFork() {
    __lsan::LockAllocator();
    __sanitizer::StackDepotLockAll();
  }
  ~HeapAcrossFork() {
    __sanitizer::StackDepotUnlockAll();
    __lsan::UnlockAllocator();
  }
#else
  HeapAcrossFork() {}
  ~HeapAcrossFork() {}
#endif
  HeapAcrossFork(const HeapAcrossFork&) = delete;
  HeapAcrossFork& operator=(const HeapAcrossFork&) = delete;
};

}  // namespace uckpt
