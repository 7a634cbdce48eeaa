# @NAME@::@NAME@ is the static library, @NAME@::shared the shared library.
if(NOT TARGET @NAME@::@NAME@)
  foreach(kind IN ITEMS @NAME@ shared)
    if(kind STREQUAL "shared")
      add_library(@NAME@::shared SHARED IMPORTED)
      set(file lib@NAME@.so)
    else()
      add_library(@NAME@::@NAME@ STATIC IMPORTED)
      set(file lib@NAME@.a)
    endif()
    set_target_properties(@NAME@::${kind} PROPERTIES
      IMPORTED_LOCATION "${CMAKE_CURRENT_LIST_DIR}/${file}"
      INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}"
      INTERFACE_LINK_LIBRARIES "pthread;m")
  endforeach()
endif()
