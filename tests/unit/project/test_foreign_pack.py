"""The tests of the pack of somebody else, which inherits our laws."""

from foreign_pack.test_laws import TestBrightness, TestContrast, TestFewOfMany, TestShifted

__all__ = ["TestBrightness", "TestContrast", "TestFewOfMany", "TestShifted"]
