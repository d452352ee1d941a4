"""Models in and out: conversion of other code's weights, export to other runtimes."""
